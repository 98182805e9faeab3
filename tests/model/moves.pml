/* SPDX-License-Identifier: MIT */
/*
 * A region that moves between two donors while it is used: who has the authority over it.
 * README.md, "When a region moves", has it in words; ownership.pml has what one donor decides.
 *
 * One step at a time: a donor's, the writer's, another writer's, the world's.  What a step does is
 * done whole; between two steps anything may be killed or cut off, and each message may be lost,
 * come late, or come twice.  Contents have no values: for each donor there is a bit that says
 * whether its bytes have every write that was answered.
 *
 * What there is, which rules are off and which properties are checked is said in the environment,
 * as for ownership.pml:
 *     SETTING="moves=2 killing cuts without-refusal check-O" ./pan …
 */

c_decl {

	/* What there is in the world, … */
	#define WORLD(X) \
		X(killing) /* daemons of donors are killed and start again: memory is with its holder */ \
		X(reboots) /* a donor's machine restarts: memory is gone, what is on disk is not */ \
		X(cuts)    /* the writer's connection is lost, and it asks again */ \
		X(asking)  /* somebody aborts, or carries words (weft move --resolve) */ \
		X(other)   /* another writer comes whenever a donor lets it in */ \
		X(file)    /* contents are files, and each write is flushed */ \
		X(postcopy) /* the second donor serves before it has all */ \
		X(gone)    /* an operator says that the second donor is gone for good */ \
		X(strangers) /* while a donor is down, somebody opens its file with another one */
	/* … the rules, … */
	#define RULES(X) \
		X(tracked) X(told) X(compared) X(drained) X(prepared) X(commit_noted) X(served_noted) \
		X(refusal) X(keyed) X(keeps) X(taken_back) X(fenced) X(ways) X(moved_keyed) X(table) X(held) \
		X(asks_with_bytes) X(word_noted) X(turns) X(durable) X(marked) \
		X(new_line) X(filled) X(absent) X(absent_kept)
	/* … and what must hold. */
	#define PROPERTIES(X) X(O) X(W) X(D) X(L) X(S2) X(T) X(P)

	#define DECLARE_WORLD(name) static int has_##name;
	#define DECLARE_RULE(name) static int rule_##name = 1;
	#define DECLARE_PROPERTY(name) static int check_##name;
	WORLD(DECLARE_WORLD)
	RULES(DECLARE_RULE)
	PROPERTIES(DECLARE_PROPERTY)
	static int nr_moves = 1;

	static int setting_is(const char *word)
	{
		#define TRY_WORLD(name) if (!strcmp(word, #name)) return has_##name = 1;
		#define TRY_RULE(name) if (!strcmp(word, "without-" #name)) return rule_##name = 0, 1;
		#define TRY_PROPERTY(name) if (!strcmp(word, "check-" #name)) return check_##name = 1;
		WORLD(TRY_WORLD)
		RULES(TRY_RULE)
		PROPERTIES(TRY_PROPERTY)
		return sscanf(word, "moves=%d", &nr_moves) == 1;
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
#define more_moves (c_expr { now.move < nr_moves })
#define must(property, condition) \
	if \
	:: !(condition) -> c_code { if (check_##property) uerror(#property " does not hold"); } \
	:: else \
	fi

/* ---- what a donor keeps, durably ---- */

#define NOTHING 0
#define OWNER 1    /* it decides */
#define PREPARED 2 /* it has the bytes, and is closed */
#define GIVEN 3    /* it gave the region away, and keeps the bytes, closed */
#define GONE 4     /* it gave the region away, and its bytes too; it says where to */
#define REFUSED 5  /* it promised never to serve that move */
typedef donor {
	byte is;
	byte at;      /* the move by which it is that: the generation of the authority */
	byte gave;    /* the last move by which it gave the region away */
	bit bytes;    /* it has bytes … */
	bit whole;    /* … and every write that was answered is in them */
	bit hit;      /* its machine restarted in the handover that is under way */
	bit told;     /* it was told all that goes with the bytes, since the freeze */
	bit entry;    /* its table knows the writer */
	bit holds;    /* … and keeps the region for it: its lease is not over */
	bit disk;     /* file: what it has is on its disk, with a clean mark of the epoch … */
	byte line;    /* which contents these are: another line is another epoch */
	bit lacks;    /* what it has and serves lacks something, which the other has */
	bit shut;     /* … by which only a donor with these notes goes on */
	/* What a kill takes. */
	bit up;
	bit moving;   /* it tracks what is written */
	bit frozen;
	bit pulled;   /* the other has a first copy */
	bit dirty;    /* it knows that the other's copy lacks something */
	bit serving;  /* without served_noted: it was told that it is the owner */
}
donor d[2];
byte move;      /* how many moves there were */
byte told;      /* a COMMIT of that move to … */
byte told_to;   /* … that donor is, or was, on its way; 0: none */
/*
 * What one donor said of a move to an operator, who brings it to the other, late or twice; 0:
 * nothing.
 */
byte word_never;   /* it did not give the region away by that move, and never will */
byte word_refused; /* it never served by that move, and never will */
byte word_served;  /* it serves by that move */
byte lines;     /* how many new ones there were */
bit lost;       /* the owner's machine lost its memory: no answer is owed any more */

/* ---- the writer ---- */

#define NOWHERE 2
byte at = NOWHERE;  /* the donor that it is connected to */
byte last = 0;      /* the donor that granted it the region last */
bit ways = 0;       /* it knows the ways to the other donor */
bit reports = 0;    /* its lanes report what they write */
bit unreported = 0; /* it wrote something that it has not reported yet */
bit unknown = 0;    /* it wrote something that it will never report */
bit quiet = 0;      /* it was told to drain, and did */
bit in_lease = 0, outdated = 0; /* it shows what it remembers; another wrote since */

#define decides(x) (d[x].is == OWNER || d[x].serving)
#define open(x) (d[x].up && d[x].bytes && decides(x))
/* What x has is all that was answered, with what the other keeps for it. */
#define complete(x, y) (d[x].bytes && d[x].whole && (!d[x].lacks || d[y].bytes))
/* The bytes of x are the only ones that have this write. */
#define wrote_at(x, y) d[y].whole = 0

inline forget_process(x)
{
	d[x].moving = 0; d[x].frozen = 0; d[x].pulled = 0; d[x].dirty = 0; d[x].serving = 0
}

/* The writer's connection to x is over, and what it would have reported is too. */
inline session_ends(x)
{
	if
	:: at == x ->
		at = NOWHERE; quiet = 0; reports = 0;
		if
		:: d[x].moving && (unreported || unknown) && rule(compared) -> d[x].dirty = 1; unreported = 0; unknown = 0
		:: d[x].moving && unreported && !rule(compared) -> unreported = 0; unknown = 1
		:: else -> unreported = 0; unknown = 0
		fi
	:: else
	fi
}

inline move_is_over(x)
{
	d[x].moving = 0; d[x].frozen = 0; d[x].pulled = 0; d[x].dirty = 0;
	unreported = 0; unknown = 0; reports = 0;
	quiet = 0
}

/* x gave the region away by that move: whoever is connected is cut off. */
inline give(x)
{
	d[x].is = GIVEN;
	d[0].hit = 0; d[1].hit = 0;
	if :: has(file) && !rule(marked) -> d[x].disk = 1 :: else fi;
	d[x].gave = d[x].at;
	if :: rule(fenced) -> session_ends(x) :: else fi;
	move_is_over(x);
	if :: !rule(keeps) -> d[x].bytes = 0; d[x].whole = 0; d[x].is = GONE :: else fi
}

inline serve(y)
{
	printf("%d serves (move %d)\n", y, d[y].at);
	if :: rule(served_noted) -> d[y].is = OWNER :: else -> d[y].serving = 1 fi
}

inline check_owners()
{
	must(O, !(decides(0) && decides(1) && d[0].line == d[1].line));
	must(D, lost || lines || complete(0, 1) || complete(1, 0))
}

/*
 * Somebody decides, or one of the two can still find out that it does: x asks y, takes back from
 * y, or goes on with what it is about.
 */
#define finds_out(x, y) \
	((d[x].is == PREPARED && d[x].bytes && d[y].is == GIVEN && d[y].gave == d[x].at) || \
	 (d[x].is == PREPARED && d[x].bytes && d[y].is == GONE && d[y].gave == d[x].at) || \
	 (d[x].is == GIVEN && d[x].bytes && (d[y].is == REFUSED || d[y].is == PREPARED)))
inline check_life()
{
	must(L, lost || lines || decides(0) || decides(1) || finds_out(0, 1) || finds_out(1, 0))
}

#define DONOR(x, y) \
:: d_step { !rule(turns) && d[x].moving && d[x].pulled && d[x].dirty -> \
	printf("a late question takes what was written off the list\n"); \
	d[x].dirty = 0 } \
:: d_step { d[x].up && d[x].is == OWNER && d[x].bytes && !d[x].moving && more_moves && \
		!d[x].lacks && d[y].up && \
		(d[y].is == NOTHING || d[y].is == GONE || d[y].is == REFUSED) -> \
	printf("a move from %d to %d begins\n", x, y); \
	forget_process(y); d[y].told = 0; \
	d[x].moving = 1; d[x].pulled = 0; d[x].dirty = 0; d[x].frozen = 0; \
	move++; \
	unreported = 0; unknown = 0; reports = 0 } \
:: d_step { d[x].moving && at == x && !reports -> \
	printf("the writer says that it reports, and knows the ways to %d\n", y); \
	reports = 1; \
	if :: !d[x].pulled -> unknown = 0 :: else fi; \
	if :: rule(ways) -> ways = 1 :: else fi } \
:: d_step { d[x].moving && at == x && unreported -> \
	printf("the writer reports\n"); \
	unreported = 0; d[x].dirty = 1 } \
:: d_step { d[x].moving && d[y].up && d[y].at != move && rule(prepared) && \
		(d[y].is == NOTHING || d[y].is == GONE || d[y].is == REFUSED) -> \
	printf("%d notes that it is about to be prepared (move %d)\n", y, move); \
	d[y].at = move; d[y].is = PREPARED; d[y].told = 0 } \
:: d_step { d[x].moving && d[y].up && d[y].is == PREPARED && d[y].at == move && \
		!d[y].serving && (told != move || told_to != y) -> \
	printf("%d has the move called off\n", y); \
	move_is_over(x); \
	d[y].is = NOTHING; d[y].bytes = 0; d[y].whole = 0 } \
:: d_step { d[x].moving && d[y].up && (!d[x].pulled || d[x].dirty) && (at != x || reports || !rule(tracked)) && \
		(d[y].is == NOTHING || d[y].is == GONE || d[y].is == REFUSED || \
			(d[y].is == PREPARED && d[y].at == move)) -> \
	printf("%d pulls\n", y); \
	d[x].pulled = 1; d[x].dirty = 0; \
	d[y].disk = 0; d[y].shut = 0; d[y].line = d[x].line; d[y].lacks = 0; \
	d[y].bytes = 1; d[y].whole = d[x].whole && !unreported && !unknown } \
:: d_step { d[x].moving && d[x].pulled && !d[x].frozen && at == x && !quiet && reports -> \
	printf("the writer drains\n"); \
	quiet = 1 } \
:: d_step { d[x].moving && d[x].pulled && !d[x].frozen && (at != x || (quiet && !unreported) || !rule(drained)) -> \
	printf("%d is frozen\n", x); \
	d[x].frozen = 1 } \
:: d_step { d[x].moving && d[x].pulled && d[x].frozen && !d[x].dirty && d[y].up && d[y].bytes && \
		(d[y].is == NOTHING || d[y].is == GONE || d[y].is == REFUSED || \
			(d[y].is == PREPARED && d[y].at == move)) -> \
	printf("%d is prepared (move %d)\n", y, move); \
	d[y].at = move; \
	if :: rule(prepared) -> d[y].is = PREPARED :: else fi; \
	d[y].told = 1; \
	if :: has(file) && rule(durable) -> d[y].disk = 1; d[y].shut = rule(marked) :: else fi; \
	d[y].entry = (rule(table) && d[x].entry); \
	d[y].holds = (rule(held) && d[x].holds) } \
:: d_step { has(postcopy) && d[x].moving && d[x].frozen && d[y].up && d[y].is == PREPARED && \
		d[y].at == move && !d[y].told -> \
	printf("%d is prepared to serve before it has all (move %d)\n", y, move); \
	d[x].dirty = 0; d[x].pulled = 1; \
	d[y].bytes = 1; d[y].whole = d[x].whole; d[y].lacks = 1; \
	d[y].line = d[x].line; \
	d[y].told = 1; \
	d[y].entry = d[x].entry; d[y].holds = d[x].holds } \
:: d_step { has(postcopy) && d[x].moving && !d[x].frozen && d[y].up && \
		(at != x || (quiet && !unreported) || !rule(drained)) -> \
	printf("%d is frozen at once\n", x); \
	d[x].frozen = 1 } \
:: d_step { d[y].up && decides(y) && d[y].lacks && d[x].up && d[x].is == GIVEN && d[x].bytes && \
		d[x].gave == d[y].at -> \
	printf("%d gets from %d what it lacked\n", y, x); \
	d[y].lacks = 0 } \
:: d_step { has(postcopy) && at == y && d[y].lacks -> \
	if \
	:: rule(absent) -> printf("somebody reads what is absent at %d: it is fetched\n", y) \
	:: else -> printf("somebody reads what is absent at %d: zeros\n", y); must(W, 0) \
	fi } \
:: d_step { has(file) && rule(marked) && d[x].moving && d[x].frozen && !d[x].dirty && \
		!d[x].shut -> \
	printf("%d marks its file: it leaves\n", x); \
	d[x].disk = 1; d[x].shut = 1 } \
:: d_step { d[x].moving && d[x].frozen && !d[x].dirty && d[y].up && d[y].bytes && d[y].at == move && d[y].told && \
		(!has(file) || d[x].shut || !rule(marked)) && \
		(d[y].is == PREPARED || !rule(prepared)) && d[y].is != OWNER -> \
	if \
	:: rule(commit_noted) -> \
		printf("%d notes COMMIT, and sends it (move %d)\n", x, move); \
		must(L, at != x || ways); \
		d[x].at = move; told = move; told_to = y; \
		give(x) \
	:: else -> \
		printf("%d sends COMMIT (move %d)\n", x, move); \
		told = move; told_to = y \
	fi } \
:: d_step { !rule(commit_noted) && d[x].moving && told == move && told_to == y -> \
	printf("%d notes COMMIT (move %d)\n", x, move); \
	d[x].at = move; \
	give(x) } \
:: d_step { told && told_to == y && d[y].up && d[y].bytes && \
		((d[y].is == PREPARED && (d[y].at == told || !rule(keyed))) || (!rule(prepared) && d[y].is != OWNER && d[y].at == told)) -> \
	printf("COMMIT (move %d) comes to %d\n", told, y); \
	serve(y) } \
:: d_step { d[y].up && d[x].up && d[y].is == PREPARED && d[y].bytes && !d[y].serving && d[x].gave == d[y].at && (d[x].is == GIVEN || d[x].is == GONE) -> \
	printf("%d asks %d, which says COMMIT\n", y, x); \
	serve(y) } \
:: d_step { d[y].up && d[x].up && d[y].is == PREPARED && !d[y].serving && decides(x) && (!d[x].moving || d[y].at != move) -> \
	printf("%d asks %d, which never gave it away\n", y, x); \
	d[y].is = NOTHING; d[y].bytes = 0; d[y].whole = 0 } \
:: d_step { d[x].up && d[y].up && d[x].is == GIVEN && decides(y) && \
		d[y].at == d[x].gave && (!d[y].lacks || !rule(filled)) -> \
	printf("%d says that it serves, and %d lets go of its bytes\n", y, x); \
	d[x].is = GONE; d[x].bytes = 0; d[x].whole = 0; d[x].entry = 0; d[x].holds = 0 } \
:: d_step { has(asking) && d[x].up && d[x].moving && (told != move || told_to != y) -> \
	printf("the move is aborted at %d\n", x); \
	move_is_over(x) } \
:: d_step { has(asking) && d[y].up && d[x].up && d[x].is == GIVEN && (d[x].bytes || !rule(asks_with_bytes)) && d[y].at == d[x].gave && rule(refusal) && !d[y].serving && \
		(d[y].is == PREPARED || (d[y].is == NOTHING && !rule(word_noted))) -> \
	printf("%d promises never to serve (move %d)\n", y, d[y].at); \
	d[y].is = REFUSED; d[y].bytes = 0; d[y].whole = 0 } \
:: d_step { has(asking) && d[y].up && d[x].gave && d[y].at == d[x].gave && \
		(d[y].is == REFUSED || (!rule(refusal) && !decides(y))) && !d[y].serving && \
		word_refused != d[y].at -> \
	printf("an operator hears from %d that it never serves (move %d)\n", y, d[y].at); \
	word_refused = d[y].at } \
:: d_step { has(asking) && d[x].up && d[x].is == GIVEN && d[x].bytes && \
		word_refused == d[x].gave -> \
	printf("%d hears that, and takes back\n", x); \
	must(T, d[x].whole); \
	d[x].is = OWNER; \
	move++; \
	d[x].at = move } \
:: d_step { has(asking) && d[y].up && decides(y) && (!d[y].lacks || !rule(filled)) && \
		d[y].at && word_served != d[y].at -> \
	printf("an operator hears from %d that it serves (move %d)\n", y, d[y].at); \
	word_served = d[y].at } \
:: d_step { has(asking) && d[x].up && d[x].is == GIVEN && word_served == d[x].gave -> \
	printf("%d hears that, and lets go of its bytes\n", x); \
	d[x].is = GONE; d[x].bytes = 0; d[x].whole = 0; d[x].entry = 0; d[x].holds = 0 } \
:: d_step { has(asking) && d[x].up && d[y].at && d[x].gave != d[y].at && \
		(!d[x].moving || d[y].at != move) && \
		d[y].is == PREPARED && word_never != d[y].at -> \
	printf("an operator hears from %d that it did not give it away (move %d)\n", x, d[y].at); \
	word_never = d[y].at } \
:: d_step { has(asking) && d[y].up && d[y].is == PREPARED && !d[y].serving && \
		word_never == d[y].at -> \
	printf("%d hears that, and drops what it has\n", y); \
	d[y].is = NOTHING; d[y].bytes = 0; d[y].whole = 0 } \
:: d_step { has(gone) && d[x].up && d[x].is == GIVEN && d[x].bytes && lines < 2 -> \
	printf("an operator says that %d is gone: %d lends what it kept\n", y, x); \
	if :: rule(new_line) -> lines++; d[x].line = lines :: else -> must(T, d[x].whole) fi; \
	d[x].is = OWNER; d[x].shut = 0; \
	move++; \
	d[x].at = move } \
:: d_step { has(asking) && !rule(taken_back) && d[x].up && d[x].is == GIVEN && d[x].bytes && !d[y].up -> \
	printf("%d takes back, as %d is silent\n", x, y); \
	must(T, d[x].whole); \
	d[x].is = OWNER; \
	move++; \
	d[x].at = move } \
:: d_step { has(killing) && d[x].up -> \
	printf("%d is killed\n", x); \
	session_ends(x); \
	if :: has(file) && decides(x) && !d[x].shut -> lost = 1 :: else fi; \
	if \
	:: has(file) && d[x].is == PREPARED && !d[x].disk -> \
		d[x].is = REFUSED; d[x].bytes = 0; d[x].whole = 0 \
	:: else \
	fi; \
	if :: d[x].lacks && !rule(absent_kept) -> d[x].lacks = 0; d[x].whole = 0 :: else fi; \
	forget_process(x); \
	unreported = 0; unknown = 0; \
	d[x].up = 0; \
	d[x].told = 0; \
	if :: d[y].moving -> d[y].pulled = 0; d[y].frozen = 0; d[y].dirty = 0 :: else fi } \
:: d_step { !d[x].up -> \
	printf("%d starts\n", x); \
	d[x].up = 1; \
	if :: (d[x].is == NOTHING || d[x].is == GONE || d[x].is == REFUSED) -> d[x].bytes = 0; d[x].whole = 0 :: else fi; \
	quiet = 0 } \
:: d_step { has(strangers) && !d[x].up && d[x].bytes && d[x].disk && !d[x].shut && \
		(d[x].is == GIVEN || d[x].is == PREPARED) -> \
	printf("the file of %d is opened by another donor, and goes on there\n", x); \
	must(O, 0) } \
:: d_step { has(reboots) && has(file) && d[x].up -> \
	printf("the machine of %d restarts\n", x); \
	session_ends(x); \
	if :: decides(x) -> must(P, lost || d[x].disk) :: else fi; \
	if :: decides(x) && !d[x].shut -> lost = 1 :: else fi; \
	if :: d[x].is == PREPARED && !d[x].disk -> d[x].is = REFUSED :: else fi; \
	if \
	:: d[x].disk && (d[x].is == OWNER || d[x].is == PREPARED || d[x].is == GIVEN) \
	:: else -> d[x].bytes = 0; d[x].whole = 0 \
	fi; \
	forget_process(x); \
	unreported = 0; unknown = 0; \
	d[x].told = 0; \
	if :: d[y].moving -> d[y].pulled = 0; d[y].frozen = 0; d[y].dirty = 0 :: else fi } \
:: d_step { has(reboots) && !has(file) && d[x].up -> \
	printf("the machine of %d restarts\n", x); \
	session_ends(x); \
	if :: d[x].is == GIVEN || d[x].is == PREPARED -> d[x].hit = 1 :: else fi; \
	if :: decides(x) || d[y].lacks || (d[0].hit && d[1].hit) || \
		(d[x].is == GIVEN && d[x].bytes && d[y].is == REFUSED && d[y].at == d[x].gave) -> lost = 1 :: else fi; \
	forget_process(x); \
	unreported = 0; unknown = 0; \
	d[x].bytes = 0; d[x].whole = 0; \
	if \
	:: d[x].is == OWNER -> d[x].is = NOTHING \
	:: d[x].is == PREPARED -> d[x].is = REFUSED \
	:: else \
	fi; \
	if :: d[y].moving -> d[y].pulled = 0; d[y].frozen = 0; d[y].dirty = 0 :: else fi } \
/* ---- the writer, at x ---- */ \
:: d_step { at == NOWHERE && d[x].up && !outdated && (last == x || ways) && open(x) && \
		d[x].line == 0 && \
		!(d[x].frozen && d[x].moving) -> \
	printf("the writer asks %d", x); \
	must(L, d[x].entry); \
	if \
	:: d[x].gave && d[x].gave < d[x].at && !rule(moved_keyed) -> \
		printf(": it moved away\n"); \
		must(L, 0) \
	:: else -> \
		printf(": granted\n"); \
		at = x; last = x; quiet = 0; in_lease = 1; d[x].holds = 1; d[x].entry = 1; \
		d[x].shut = 0; \
		unreported = 0; unknown = 0; \
		reports = (d[x].moving && rule(told)); \
		if :: reports && rule(ways) -> ways = 1 :: else fi \
	fi } \
:: d_step { at == x && !quiet -> \
	printf("the writer writes at %d, and is answered\n", x); \
	must(W, lost || (decides(x) && d[x].whole)); \
	wrote_at(x, y); \
	d[x].shut = 0; \
	if :: d[x].moving -> if :: reports -> unreported = 1 :: else -> unknown = 1 fi :: else fi } \
:: d_step { has(cuts) && at == x -> \
	printf("the writer's connection to %d is lost\n", x); \
	session_ends(x) } \
:: d_step { at == NOWHERE && last == x && d[x].up && (d[x].is == GIVEN || d[x].is == GONE) && !ways -> \
	printf("the writer hears from %d that the region moved\n", x); \
	ways = 1 } \
:: d_step { at == x && quiet && !d[x].moving && decides(x) -> \
	printf("%d tells the writer to go on\n", x); \
	quiet = 0 } \
/* ---- another writer ---- */ \
:: d_step { has(other) && open(x) && d[x].line == 0 && \
		at != x && !d[x].holds && !(d[x].moving && d[x].frozen) -> \
	printf("another writes at %d\n", x); \
	must(S2, !in_lease || lost); \
	must(W, lost || d[x].whole); \
	wrote_at(x, y); \
	d[x].shut = 0; \
	d[x].entry = 1; \
	outdated = 1; \
	if :: d[x].moving -> d[x].dirty = 1 :: else fi } \
:: d_step { d[x].holds && at == NOWHERE && !in_lease && !d[x].moving && decides(x) -> \
	printf("the lease at %d is over\n", x); \
	d[x].holds = 0 }

active proctype world()
{
	d_step {
		d[0].is = OWNER; d[0].bytes = 1; d[0].whole = 1; d[0].up = 1; d[1].up = 1;
		d[0].disk = 1;
		at = 0; d[0].entry = 1; d[0].holds = 1; in_lease = 1;
	}
	do
	DONOR(0, 1)
	DONOR(1, 0)
	:: d_step { in_lease && at == NOWHERE && has(other) -> printf("the writer's own lease is over\n"); in_lease = 0 }
	:: d_step { told -> printf("COMMIT (move %d) is lost for good\n", told); told = 0; told_to = 0 }
	:: d_step { 1 -> check_owners(); check_life(); }
	od
}
