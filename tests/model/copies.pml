/* SPDX-License-Identifier: MIT */
/*
 * A device of which several donors have a copy: which copies are current, and who may answer.
 * README.md, "Copies", has it in words; ownership.pml has what one donor decides.
 *
 * One step at a time: a borrower's, a donor's, the world's.  Between two steps anything may be
 * killed or cut off.  Contents have no values: for each donor there is a bit that says whether its
 * bytes have every write that was answered, or shown, and one for a write that ended without an
 * answer and is at some copies only.
 *
 * Two borrowers want the device.  The first keeps a state, and is taken over after it was killed;
 * the second begins anew each time.  Sets of donors are bits.
 *
 * What there is, which rules are off and which properties are checked is said in the environment,
 * as for ownership.pml:
 *     SETTING="copies=2 min=1 terms=2 changes=2 killing check-W without-recorded" ./pan …
 */

c_decl {

	/* What there is in the world, … */
	#define WORLD(X) \
		X(killing)  /* borrowers are killed, and their machine's state is kept */ \
		X(cuts)     /* a connection is lost, and comes back or not */ \
		X(second)   /* the second borrower */ \
		X(leases)   /* a borrower that is cut off answers until its own lease is over */ \
		X(fresh)    /* no set was made yet */ \
		X(aside)    /* the second copy gets another region, and its former one again */
	/* … the rules, … */
	#define RULES(X) \
		X(recorded) X(state_first) X(copied) X(counted) X(answers) X(blank) X(granted) \
		X(lease) X(highest) X(settled) X(opened) X(anew) X(stale) X(making) X(unmixed) \
		X(claimed) X(since) X(each) X(term)
	/* … and what must hold. */
	#define PROPERTIES(X) X(W) X(D) X(L)

	#define DECLARE_WORLD(name) static int has_##name;
	#define DECLARE_RULE(name) static int rule_##name = 1;
	#define DECLARE_PROPERTY(name) static int check_##name;
	WORLD(DECLARE_WORLD)
	RULES(DECLARE_RULE)
	PROPERTIES(DECLARE_PROPERTY)
	static int nr_losses; /* so often a donor loses its memory, and its notes with it */
	static int nr_copies = 2, min_copies = 1, nr_terms = 3, nr_changes = 2;

	static int setting_is(const char *word)
	{
		#define TRY_WORLD(name) if (!strcmp(word, #name)) return has_##name = 1;
		#define TRY_RULE(name) \
			if (!strcmp(word, "without-" #name)) return rule_##name = 0, 1;
		#define TRY_PROPERTY(name) \
			if (!strcmp(word, "check-" #name)) return check_##name = 1;
		WORLD(TRY_WORLD)
		RULES(TRY_RULE)
		PROPERTIES(TRY_PROPERTY)
		return sscanf(word, "copies=%d", &nr_copies) == 1 || sscanf(word, "min=%d",
			&min_copies) == 1 ||
			sscanf(word, "terms=%d", &nr_terms) == 1 || sscanf(word, "changes=%d",
				&nr_changes) == 1 ||
			sscanf(word, "losses=%d", &nr_losses) == 1;
	}

	__attribute__((constructor)) static void read_setting(void)
	{
		char *text = strdup(getenv("SETTING") ? getenv("SETTING") : "");

		for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
			if (!setting_is(word)) {
				fprintf(stderr, "SETTING has an unknown word: %s\n", word);
				exit(2);
			}
		free(text);
	}
}

#define has(what) (c_expr { has_##what })
#define rule(what) (c_expr { rule_##what })
/*
 * A generation of the set: the term of the borrower that began it, and which change of its it is.
 */
#define generation(term, change) ((term) * 8 + (change))
#define term_of(g) ((g) / 8)
#define more_changes(g) ((g) % 8 < c_changes)
#define must(property, condition) \
	if \
	:: !(condition) -> c_code { if (check_##property) uerror(#property " does not hold"); } \
	:: else \
	fi

#define bit_of(i) (1 << (i))
#define has_bit(set, i) (((set) >> (i)) & 1)
/* Of three donors at most. */
#define nr_of(set) (((set) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1))

byte c_copies, c_min, c_terms, c_changes, c_losses; /* constant */
byte losses;
#define all_copies ((1 << c_copies) - 1)

/* ---- what a donor keeps with its bytes ---- */

#define NOBODY 2
#define MAKING 1 /* the generation of a set of which nothing was ever written */
typedef donor {
	byte claimed; /* the highest term that was claimed */
	byte record;  /* the generation of the set, as it was noted; 0: it is blank */
	byte members; /* … and the members of that generation */
	bit clean;    /* … whose writer said goodbye since */
	short since;  /* the terms in which the copies got other regions last, of three bits each */
	byte holder;
}
donor d[3];
byte whole;  /* donors whose bytes have every write that was answered or shown */
bit written; /* something was answered, or shown, since the device began */
byte torn;   /* donors that have a write that ended without an answer, and was not shown */
/* The region that is not the second copy now: blank at first, then that which was. */
donor aside;
bit aside_whole, aside_torn;

/* ---- a borrower ---- */

typedef borrower {
	bit alive, known;
	bit settled;  /* its generation is noted, the copies are the same: it goes on */
	bit same;     /* the copies are the same, as the writer before said goodbye */
	bit makes;    /* no donor had noted anything when it began to make a set */
	byte conn;    /* donors that have granted it, and to which it is connected */
	byte fresh;   /* donors whose lease is not over by its own clock */
	byte other;   /* members whose contents are not those that it knows */
	byte term;    /* its own, once that is claimed at … */
	byte claims;  /* … these donors */
	byte number, members; /* the set, as it sees it: its generation */
	byte due;     /* members that have not recorded it yet */
	byte synced;  /* copies that have been made, and are no members yet */
	byte joining; /* members that became so last */
	byte told;    /* copies whose region may have been told something under the term */
	short since;  /* as it is noted */
	bit away;     /* the second copy that it means is aside */
	bit writing;
	bit outdated; /* another's write was answered since it began */
	byte landed;  /* copies that have what it is writing */
	/* The state: what the next process knows. */
	bit state;
	byte state_number, state_members;
	short state_since;
}
borrower b[2];

#define has_claimed(w) (rule(claimed) -> b[w].claims & b[w].conn : b[w].conn)
#define live(w) (b[w].members & b[w].conn & ~b[w].other)
/* Enough members are its own for certain: nobody else answers. */
#define may_answer(w) (nr_of(b[w].members & b[w].fresh & ~b[w].other) >= c_min || !rule(lease))

inline forget(w)
{
	b[w].alive = 0; b[w].known = 0; b[w].settled = 0; b[w].same = 0; b[w].makes = 0;
			b[w].conn = 0;
			b[w].fresh = 0;
	b[w].term = 0; b[w].claims = 0; b[w].number = 0; b[w].members = 0; b[w].due = 0;
	b[w].synced = 0; b[w].joining = 0;
	b[w].told = 0; b[w].since = 0;
	b[w].writing = 0; b[w].landed = 0; b[w].outdated = 0
}

inline note_state(w)
{
	if
	:: w == 0 -> b[w].state = 1; b[w].state_number = b[w].number; b[w].state_members =
			b[w].members; b[w].state_since = b[w].since
	:: else
	fi
}

/* The members are others from now on. */
inline change(w, set)
{
	b[w].number++;
	b[w].members = set;
	b[w].due = set;
	b[w].told = b[w].told | set;
	if :: rule(state_first) -> note_state(w) :: else fi
}

/* What was under way when the borrower ended is at some copies. */
inline tear(w)
{
	if :: b[w].writing -> torn = torn | b[w].landed :: else fi
}

inline end_stale(w)
{
	tear(w);
	forget(w);
	b[w].state = 0; b[w].other = 0; b[w].away = 0;
	b[w].state_number = 0; b[w].state_members = 0; b[w].state_since = 0
}

/* It knows the members now, and begins a generation of its own. */
inline knows(w, set)
{
	b[w].known = 1;
	b[w].told = (b[w].state -> all_copies : 0);
	b[w].term = 0; b[w].claims = 0;
	if \
	:: rule(opened) -> change(w, set) \
	:: else -> b[w].members = set \
	fi
}

#define rec(i) (has_bit(asked, i) * d[i].record)
#define highest_of(x, y, z) ((x) >= (y) && (x) >= (z) -> (x) : ((y) >= (z) -> (y) : (z)))
#define first_of(x, y, z) ((x) -> (x) : ((y) -> (y) : (z)))
#define donors_that(a, b, c) ((a) + (b) * 2 + (c) * 4)
#define blank_of(set) (donors_that(d[0].record == 0, d[1].record == 0, d[2].record == 0) & (set))
#define unclean_of(set) (donors_that(!d[0].clean, !d[1].clean, !d[2].clean) & (set))
#define making_of(set) \
	(donors_that(d[0].record <= MAKING, d[1].record <= MAKING, d[2].record <= MAKING) & (set))
#define since_of(all, i) (((all) >> (3 * (i))) & 7)
#define with_since(all, i, term) (((all) & ~(7 << (3 * (i)))) | ((term) << (3 * (i))))
/* It is not the region that was the copy last: blank, or it was replaced. */
#define is_another(w, i) (d[i].record == 0 || term_of(d[i].record) < since_of(b[w].since, i))
#define may_take_in(w, i) \
	(b[w].known && b[w].settled && b[w].due == 0 && live(w) == b[w].members && \
		has_bit(b[w].conn & ~b[w].members, i) && is_another(w, i) && rule(since))
#define is_placed(all, i) (term_of(d[i].record) >= since_of(all, (rule(each) -> i : 1)))
#define placed_of(all) donors_that(is_placed(all, 0), is_placed(all, 1), is_placed(all, 2))
byte asked, top, set, placed;
short since;

#define exchange(x, y) set = x; x = y; y = set
/* It means one of the two regions, and has the other now. */
inline look_away(w, meant)
{
	b[w].conn = b[w].conn & ~2; b[w].fresh = b[w].fresh & ~2; b[w].claims = b[w].claims & ~2;
	b[w].synced = b[w].synced & ~2;
	if
	:: has_bit(meant, 1) && !b[w].away && !has_bit(b[w].other, 1) ->
		b[w].away = 1; b[w].other = b[w].other | 2
	:: has_bit(meant, 1) && b[w].away ->
		b[w].away = 0; b[w].other = b[w].other & ~2
	:: else
	fi
}
inline tear_apart(w)
{
	if
	:: b[w].writing && has_bit(b[w].landed, 1) ->
		torn = torn | 2; b[w].landed = b[w].landed & ~2
	:: else
	fi
}
/* What is aside lacks what is seen now, or has what nobody sees. */
inline fall_behind()
{
	if :: aside_torn -> aside_whole = 0; aside_torn = 0 :: else fi
}

/* Nobody knows of other contents: they are gone, or there were none. */
inline begin_contents()
{
	if
	:: blank_of(all_copies) == all_copies -> written = 0
	:: else
	fi
}

#define ONE(w, i) \
/* ---- connections ---- */ \
:: d_step { b[w].alive && !has_bit(b[w].conn, i) && (d[i].holder == w || d[i].holder == NOBODY) -> \
	printf("%d asks donor %d", w, i); \
	if \
	:: rule(stale) && (b[w].known || b[w].state) && d[i].claimed > term_of(b[w].number) -> \
		printf(", where another claimed a later term: stale\n"); \
		end_stale(w) \
	:: else -> \
		printf(": granted\n"); \
		if \
		:: b[1 - w].writing && has_bit(b[1 - w].landed, i) && d[i].holder != w -> \
			/* What the other sent is there, or never will be. */ \
			torn = torn | bit_of(i); b[1 - w].landed = b[1 - w].landed & ~bit_of(i) \
		:: else \
		fi; \
		b[w].conn = b[w].conn | bit_of(i); b[w].fresh = b[w].fresh | bit_of(i); \
		d[i].holder = w; \
		if \
		:: !b[w].known && !b[w].state && d[i].claimed >= b[w].term -> \
			b[w].term = d[i].claimed + 1; b[w].claims = 0 \
		:: else \
		fi; \
		if \
		:: !b[w].known && !b[w].state && rule(claimed) && b[w].term <= c_terms -> \
			printf("%d claims term %d at donor %d\n", w, b[w].term, i); \
			d[i].claimed = b[w].term; b[w].claims = b[w].claims | bit_of(i) \
		:: else \
		fi \
	fi } \
:: d_step { has(cuts) && has_bit(b[w].conn, i) -> \
	printf("the connection of %d to donor %d is lost\n", w, i); \
	b[w].conn = b[w].conn & ~bit_of(i); b[w].synced = b[w].synced & ~bit_of(i); \
	b[w].claims = b[w].claims & ~bit_of(i); \
	if :: !has(leases) -> b[w].fresh = b[w].fresh & ~bit_of(i) :: else fi } \
:: d_step { has_bit(b[w].fresh, i) && !has_bit(b[w].conn, i) -> \
	printf("the lease of %d at donor %d is over by its own clock\n", w, i); \
	b[w].fresh = b[w].fresh & ~bit_of(i) } \
:: d_step { d[i].holder == w && !has_bit(b[w].fresh, i) && !has_bit(b[w].conn, i) && \
		(b[w].alive || has(killing)) -> \
	printf("donor %d is free\n", i); \
	d[i].holder = NOBODY } \
:: d_step { b[w].alive && !b[w].known && !b[w].state && has_bit(b[w].conn & ~b[w].claims, i) && \
		b[w].term <= c_terms && rule(claimed) -> \
	printf("%d claims term %d at donor %d\n", w, b[w].term, i); \
	d[i].claimed = b[w].term; \
	b[w].claims = b[w].claims | bit_of(i) } \
/* ---- members ---- */ \
:: d_step { b[w].known && has_bit(b[w].members, i) && more_changes(b[w].number) && \
		nr_of(b[w].members & ~bit_of(i)) >= c_min -> \
	printf("%d goes on without donor %d\n", w, i); \
	set = b[w].members & ~bit_of(i); \
	b[w].conn = b[w].conn & ~bit_of(i); b[w].other = b[w].other & ~bit_of(i); b[w].joining = \
			0; \
	if :: i == 1 -> b[w].away = 0 :: else fi; \
	change(w, set); \
	set = 0 } \
:: d_step { has_bit(b[w].due, i) && has_bit(live(w), i) && d[i].holder == w -> \
	printf("donor %d notes generation %d.%d for %d\n", i, term_of(b[w].number), \
			b[w].number % 8, w); \
	d[i].record = b[w].number; d[i].members = b[w].members; d[i].clean = 0; \
	d[i].since = b[w].since; \
	if :: rule(claimed) -> d[i].claimed = term_of(b[w].number) :: else fi; \
	b[w].due = b[w].due & ~bit_of(i); \
	if :: b[w].due == 0 -> b[w].joining = 0 :: else fi } \
:: d_step { b[w].known && b[w].settled && !has_bit(b[w].members, i) && has_bit(b[w].conn, i) && \
		!has_bit(b[w].synced, i) && !b[w].writing && live(w) -> \
	printf("%d makes donor %d a copy again\n", w, i); \
	b[w].synced = b[w].synced | bit_of(i); \
	if \
	:: rule(copied) && (whole & live(w)) -> whole = whole | bit_of(i) \
	:: rule(copied) && !(whole & live(w)) -> whole = whole & ~bit_of(i) \
	:: else \
	fi; \
	torn = torn & ~bit_of(i) } \
:: d_step { may_take_in(w, i) && has_bit(b[w].told, i) && rule(term) && \
		term_of(b[w].number) < c_terms -> \
	printf("%d begins term %d, as donor %d is another\n", w, term_of(b[w].number) + 1, i); \
	b[w].number = generation(term_of(b[w].number) + 1, 0) - 1; \
	b[w].told = 0; \
	set = b[w].members; \
	change(w, set); \
	set = 0 } \
:: d_step { may_take_in(w, i) && (!has_bit(b[w].told, i) || !rule(term)) && \
		since_of(b[w].since, i) < term_of(b[w].number) && more_changes(b[w].number) -> \
	printf("%d: nothing counts at donor %d from before term %d\n", w, i, \
		term_of(b[w].number)); \
	b[w].since = with_since(b[w].since, i, term_of(b[w].number)); \
	set = b[w].members; \
	change(w, set); \
	set = 0 } \
:: d_step { may_take_in(w, i) && (!has_bit(b[w].told, i) || !rule(term)) && \
		since_of(b[w].since, i) == term_of(b[w].number) && d[i].holder == w -> \
	printf("donor %d notes generation %d.%d for %d, and is no member\n", i, \
		term_of(b[w].number), b[w].number % 8, w); \
	d[i].record = b[w].number; d[i].members = b[w].members; d[i].clean = 0; \
	d[i].since = b[w].since; d[i].claimed = term_of(b[w].number); \
	b[w].told = b[w].told | bit_of(i) } \
:: d_step { b[w].known && has_bit(b[w].synced, i) && more_changes(b[w].number) && b[w].due == 0 && \
		(!is_another(w, i) || !rule(since)) -> \
	printf("%d makes donor %d a member\n", w, i); \
	b[w].synced = b[w].synced & ~bit_of(i); \
	set = b[w].members | bit_of(i); \
	change(w, set); \
	b[w].joining = bit_of(i); \
	set = 0 } \
:: d_step { !b[w].known && b[w].alive && !b[w].state && has_claimed(w) == all_copies && \
		making_of(all_copies) == all_copies && rule(making) && d[i].record == 0 && \
		(blank_of(all_copies) == all_copies || b[w].makes || !rule(unmixed)) -> \
	printf("donor %d notes for %d that a set is being made\n", i, w); \
	begin_contents(); \
	b[w].makes = 1; \
	d[i].record = MAKING; d[i].members = all_copies } \
/* ---- the device ---- */ \
:: d_step { b[w].writing && has_bit((b[w].members | b[w].synced) & b[w].conn & ~b[w].other, i) && \
		d[i].holder == w && !has_bit(b[w].landed, i) -> \
	printf("what %d writes is at donor %d\n", w, i); \
	b[w].landed = b[w].landed | bit_of(i) } \
:: d_step { b[w].known && b[w].settled && has_bit(b[w].members & b[w].conn, i) && \
		(!has_bit(b[w].other, i) || !rule(anew)) && may_answer(w) && !b[w].writing -> \
	printf("%d reads at donor %d\n", w, i); \
	must(W, has_bit(whole, i)); \
	if \
	:: has_bit(torn, i) -> whole = whole & torn; torn = 0; written = 1; \
		aside_whole = aside_whole && aside_torn; aside_torn = 0 \
	:: torn && !has_bit(torn, i) -> whole = whole & ~torn; torn = 0; fall_behind() \
	:: else -> fall_behind() \
	fi } \
:: d_step { b[w].known && b[w].settled && !b[w].writing && b[w].due == 0 && \
		live(w) == b[w].members && !b[w].synced && has_bit(b[w].members, i) && \
			!d[i].clean -> \
	printf("donor %d notes the end of %d\n", i, w); \
	d[i].clean = 1; b[w].settled = 0; b[w].due = 8 } \
:: d_step { b[w].due == 8 && has_bit(live(w), i) && !d[i].clean -> \
	printf("donor %d notes the end of %d\n", i, w); \
	d[i].clean = 1 }

#define BORROWER(w) \
:: d_step { !b[w].alive && (w == 0 || has(second)) -> \
	if \
	:: b[w].state -> \
		printf("%d is taken over: it knows generation %d.%d\n", w, \
			term_of(b[w].state_number), b[w].state_number % 8); \
		b[w].number = b[w].state_number; b[w].since = b[w].state_since \
	:: else -> \
		printf("%d attaches\n", w); \
		b[w].other = 0; b[w].away = 0 \
	fi; \
	b[w].alive = 1 } \
/* With what the one before knew. */ \
:: d_step { b[w].alive && !b[w].known && b[w].state && more_changes(b[w].number) && \
		nr_of(b[w].state_members & b[w].conn & ~b[w].other) >= c_min -> \
	set = b[w].state_members; \
	knows(w, set); \
	set = 0 } \
/* With what the donors say. */ \
:: d_step { b[w].alive && !b[w].known && !b[w].state && \
		making_of(all_copies) != all_copies && \
		(nr_of(has_claimed(w) & ~(rule(blank) -> blank_of(7) : 0)) >= (rule(answers) -> \
			c_copies - c_min + 1 : 1) || \
			(!rule(granted) && b[w].conn && !blank_of(all_copies))) -> \
	asked = (rule(granted) -> has_claimed(w) : all_copies); \
	if \
	:: rule(highest) -> top = highest_of(rec(0), rec(1), rec(2)) \
	:: else -> top = first_of(rec(0), rec(1), rec(2)) \
	fi; \
	since = (top == rec(0) -> d[0].since : (top == rec(1) -> d[1].since : d[2].since)); \
	placed = (rule(since) -> placed_of(since) : 7); \
	b[w].since = since; \
	since = 0; \
	set = (top == rec(0) -> d[0].members : (top == rec(1) -> d[1].members : d[2].members)); \
	/* The region that was replaced may be the second copy again: that one is lost. */ \
	if :: blank_of(b[w].conn) == 0 && has_claimed(w) == all_copies && \
			has_bit(placed, 1) -> must(L, \
			nr_of(set & placed & b[w].conn) >= c_min && \
			nr_of(placed & all_copies) >= c_copies - c_min + 1) :: else fi; \
	if \
	:: top && nr_of(set & placed & b[w].conn & ~blank_of(7)) >= c_min && \
			term_of(top) < c_terms && (!rule(answers) || !rule(since) || \
			nr_of(asked & placed & ~blank_of(7)) >= c_copies - c_min + 1 || \
			!rule(blank) || !rule(granted)) -> \
		printf("%d knows generation %d.%d\n", w, term_of(top), top % 8); \
		if \
		:: !rule(opened) -> b[w].number = top \
		:: rule(opened) && rule(claimed) -> b[w].number = generation(b[w].term, 0) - 1 \
		:: else -> b[w].number = generation(term_of(top) + 1, 0) - 1 \
		fi; \
		/* A member that has no record lost its memory. */ \
		b[w].other = set & blank_of(7); \
		b[w].same = ((set & ~(b[w].conn & placed)) == 0 && unclean_of(set) == 0); \
		set = set & (placed | blank_of(7)); \
		knows(w, set) \
	:: else -> b[w].since = 0 \
	fi; \
	asked = 0; top = 0; set = 0; placed = 0 } \
:: d_step { b[w].alive && !b[w].known && !b[w].state && has_claimed(w) == all_copies && \
		making_of(all_copies) == all_copies && (blank_of(all_copies) == 0 || \
			!rule(making)) -> \
	printf("%d makes a set\n", w); \
	begin_contents(); \
	must(W, !written); \
	whole = all_copies; torn = 0; \
	b[w].number = generation((rule(claimed) -> b[w].term : 1), 0) - 1; \
	b[w].same = 1; \
	set = all_copies; \
	knows(w, set); \
	set = 0 } \
:: d_step { b[w].known && !b[w].settled && b[w].due == 0 && live(w) == b[w].members -> \
	printf("%d makes all copies the same\n", w); \
	b[w].settled = 1; \
	if \
	:: b[w].same \
	:: !b[w].same && rule(settled) && (b[w].members & whole) == 0 -> whole = \
			whole & ~b[w].members; torn = 0; fall_behind() \
	:: !b[w].same && rule(settled) && (b[w].members & whole) && torn -> \
		/* from any member, which has the torn write or does not have it */ \
		if \
		:: (b[w].members & whole & torn) -> whole = (whole & torn) | b[w].members; \
			aside_whole = aside_whole && aside_torn; aside_torn = 0 \
		:: (b[w].members & whole & ~torn) -> whole = (whole & ~torn) | b[w].members; \
			fall_behind() \
		fi; \
		torn = 0 \
	:: else \
	fi } \
:: d_step { b[w].known && b[w].due == 0 && w == 0 && (!b[w].state || b[w].state_number != \
		b[w].number) -> \
	printf("%d notes its state\n", w); \
	note_state(w) } \
:: d_step { b[w].alive && !b[w].known && !b[w].state && b[w].conn == all_copies && c_losses == \
		0 && !has(aside) && \
		making_of(all_copies) != all_copies && blank_of(all_copies) -> \
	must(L, 0) } \
:: d_step { b[w].known && b[w].settled && !b[w].writing -> \
	printf("%d writes\n", w); \
	b[w].writing = 1; b[w].landed = 0 } \
:: d_step { b[w].writing && may_answer(w) && (b[w].due == 0 || !rule(recorded)) && \
		(((b[w].members | b[w].synced) & ~b[w].landed) == 0 || \
			(!rule(counted) && (b[w].members & ~b[w].joining & ~b[w].landed) == 0)) -> \
	printf("what %d wrote is answered\n", w); \
	whole = whole & b[w].landed; \
	written = 1; \
	torn = 0; aside_whole = 0; aside_torn = 0; \
	must(D, nr_of(b[w].landed) >= c_min); \
	b[1 - w].outdated = b[1 - w].settled; \
	b[w].writing = 0; b[w].landed = 0 } \
:: d_step { b[w].settled && may_answer(w) -> \
	printf("%d answers from memory\n", w); \
	must(W, !b[w].outdated) } \
:: d_step { b[w].due == 8 && unclean_of(b[w].members) == 0 -> \
	printf("%d says goodbye\n", w); \
	if :: has_bit(b[w].conn, 0) -> d[0].holder = NOBODY :: else fi; \
	if :: has_bit(b[w].conn, 1) -> d[1].holder = NOBODY :: else fi; \
	if :: has_bit(b[w].conn, 2) -> d[2].holder = NOBODY :: else fi; \
	end_stale(w) } \
:: d_step { has(killing) && b[w].alive -> \
	printf("%d is killed\n", w); \
	tear(w); \
	forget(w); \
	if :: !b[w].state -> b[w].other = 0; b[w].away = 0 :: else fi }

#define ASIDE \
:: d_step { has(aside) -> \
	printf("donor 1 is another\n"); \
	tear_apart(0); tear_apart(1); \
	exchange(d[1].claimed, aside.claimed); exchange(d[1].record, aside.record); \
	exchange(d[1].members, aside.members); exchange(d[1].clean, aside.clean); \
	since = d[1].since; d[1].since = aside.since; aside.since = since; since = 0; \
	d[1].holder = NOBODY; \
	set = aside_whole; aside_whole = has_bit(whole, 1); whole = (whole & ~2) | (set * 2); \
	set = aside_torn; aside_torn = has_bit(torn, 1); torn = (torn & ~2) | (set * 2); \
	set = 0; \
	look_away(0, b[0].members | b[0].state_members); \
	look_away(1, b[1].members) }

#define DONOR(i) \
:: d_step { losses < c_losses && i < c_copies -> \
	printf("donor %d loses its memory\n", i); \
	losses++; \
	d[i].claimed = 0; d[i].record = 0; d[i].members = 0; d[i].clean = 0; d[i].holder = NOBODY; \
	whole = whole & ~bit_of(i); torn = torn & ~bit_of(i); \
	if :: has_bit(b[0].members | b[0].state_members, i) -> b[0].other = \
			b[0].other | bit_of(i) :: else fi; \
	if :: has_bit(b[1].members, i) -> b[1].other = b[1].other | bit_of(i) :: else fi; \
	b[0].conn = b[0].conn & ~bit_of(i); b[1].conn = b[1].conn & ~bit_of(i); \
	b[0].fresh = b[0].fresh & ~bit_of(i); b[1].fresh = b[1].fresh & ~bit_of(i); \
	b[0].claims = b[0].claims & ~bit_of(i); b[1].claims = b[1].claims & ~bit_of(i); \
	b[0].synced = b[0].synced & ~bit_of(i); b[1].synced = b[1].synced & ~bit_of(i) }

active proctype world()
{
	d_step {
		c_code { now.c_copies = nr_copies; now.c_min = min_copies; now.c_terms = nr_terms;
			now.c_losses = nr_losses; now.c_changes = nr_changes; };
		whole = all_copies;
		d[0].holder = NOBODY; d[1].holder = NOBODY; d[2].holder = NOBODY;
		if
		:: !has(fresh) ->
			written = 1;
			d[0].claimed = 1; d[0].record = generation(1, 0); d[0].members =
				all_copies; d[0].clean = 1;
			d[1].claimed = 1; d[1].record = generation(1, 0); d[1].members =
				all_copies; d[1].clean = 1;
			if
			:: c_copies > 2 ->
				d[2].claimed = 1; d[2].record = generation(1, 0); d[2].members =
					all_copies; d[2].clean = 1
			:: else
			fi
		:: else
		fi
	}
	do
	BORROWER(0)
	BORROWER(1)
	ONE(0, 0)
	ONE(0, 1)
	:: c_copies > 2 ->
		if
		ONE(0, 2)
		ONE(1, 2)
		:: skip
		fi
	ONE(1, 0)
	ONE(1, 1)
	DONOR(0)
	DONOR(1)
	DONOR(2)
	ASIDE
	od
}
