/* SPDX-License-Identifier: MIT */
/*
 * Who may go on with a region's contents: weft's rules, for spin.  README.md has them in words.
 *
 * One process takes a step at a time: a bridge's, its front-end's, the donor's, a stock client's,
 * the world's.  What a step does is done whole; where something may be lost or killed on the way
 * there are two steps, or one step for each outcome.
 *
 * Contents have no values.  For everybody who remembers something there is a bit that says whether
 * what he remembers builds on what the region has now, and one that says so of the copy of the file
 * that may be put back.  Epochs and tenures have no numbers either: only whether the one that
 * somebody knows is the one that the donor, or the copy, would take.  So writes, kills and restarts
 * are without a bound; only generations count (and a new identifier counts from 1 again).
 *
 * What there is, which rules are off and which properties are checked is said in the environment,
 * so that one compilation does for all:
 *     SETTING="file borrowers=2 reconnections=2 copy without-granted check-S1" ./pan …
 */

c_decl {

	/* What there is in the world, … */
	#define WORLD(X) \
		X(file)    /* the region is a file; else memory */ \
		X(restart) /* donors stop, start, are killed, reboot */ \
		X(closing) /* a directory's file is closed and opened again while nobody holds it */ \
		X(copy)    /* the file is copied while the donor is stopped, and put back */ \
		X(live)    /* … or copied while it is open, but nobody wrote yet: its mark is clean */ \
		X(killing) /* bridges are killed and taken over, or end and leave a cache file */ \
		X(reset)   /* weft reset, and pages that get dirty while there is no bridge */ \
		X(power)   /* a borrower's machine restarts; an older cache file may be left */ \
		X(sealed)  /* … or the file of its sealed contents, which goes on (kills too) */ \
		X(shared)  /* bridges that attached with --shared */ \
		X(evict)   /* the donor's table forgets those who do not hold */ \
		X(blind)   /* a stock client that reconnects by itself and has a page cache */ \
		X(hosts)   /* … and another, of another host, that has the same NAME@TENURE at hand */ \
		X(stock)   /* stock clients that come once */ \
		X(late)    /* writes of sessions that ended, still on their way */ \
		X(leases)  /* the time between a lost connection and the end of the lease */ \
		X(two)     /* a bridge that was superseded wakes up */ \
		X(keys)    /* borrowers' keys are revoked, and they get others of the same name */ \
		X(stranger) /* one with a key of his own, who knows the id of 0 */
	/* … the rules, … */
	#define RULES(X) \
		X(claim) X(left) X(table) X(mark_at_stop) X(mark_at_grant) X(held) X(grace) X(granted) X(granted_noted) X(wrote) X(wrote_noted) X(ended) X(reopened) \
		X(tenure) X(tenure_opening) X(tenure_owner) X(owner_kept) X(lease) X(clock) X(stale_kept) X(reset_drops) X(reset_quiet) \
		X(same_mode) X(vouch) X(noted) X(boot) X(file_noted) X(superseded) \
		X(bound) X(revoked_fenced) X(revoked_refused) X(revoked_lease)
	/* … and what must hold. */
	#define PROPERTIES(X) X(S1) X(S2) X(Z) X(L) X(K)

	#define DECLARE_WORLD(name) static int has_##name;
	#define DECLARE_RULE(name) static int rule_##name = 1;
	#define DECLARE_PROPERTY(name) static int check_##name;
	WORLD(DECLARE_WORLD)
	RULES(DECLARE_RULE)
	PROPERTIES(DECLARE_PROPERTY)
	static int nr_borrowers, nr_incarnations = 1, nr_reconnections = 2;

	static int setting_is(const char *word)
	{
		#define TRY_WORLD(name) if (!strcmp(word, #name)) return has_##name = 1;
		#define TRY_RULE(name) if (!strcmp(word, "without-" #name)) return rule_##name = 0, 1;
		#define TRY_PROPERTY(name) if (!strcmp(word, "check-" #name)) return check_##name = 1;
		WORLD(TRY_WORLD)
		RULES(TRY_RULE)
		PROPERTIES(TRY_PROPERTY)
		if (!strcmp(word, "earlier-rules")) {
			rule_claim = rule_table = rule_mark_at_stop = rule_mark_at_grant = rule_held = rule_grace = 0;
			rule_granted = rule_granted_noted = rule_wrote = rule_wrote_noted = rule_reopened = rule_tenure = rule_tenure_opening = rule_tenure_owner = rule_lease = 0;
			rule_stale_kept = rule_reset_drops = rule_reset_quiet = rule_same_mode = rule_vouch = rule_superseded = 0;
			return 1;
		}
		return sscanf(word, "borrowers=%d", &nr_borrowers) == 1 || sscanf(word, "incarnations=%d", &nr_incarnations) == 1 ||
			sscanf(word, "reconnections=%d", &nr_reconnections) == 1;
	}

	__attribute__((constructor)) static void read_setting(void)
	{
		char *text = strdup(getenv("SETTING") ? getenv("SETTING") : "");

		for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
			if (!setting_is(word)) {
				fprintf(stderr, "SETTING has an unknown word: %s\n", word);
				exit(2);
			}
		if (nr_borrowers > 2) {
			fprintf(stderr, "two borrowers at most\n");
			exit(2);
		}
		free(text);
	}
}

#define has(what) (c_expr { has_##what })
#define rule(what) (c_expr { rule_##what })
#define exists(x) (c_expr { nr_borrowers > x })
/* A property that does not hold ends the run, with its name. */
#define must(property, condition) \
	if \
	:: !(condition) -> c_code { if (check_##property) uerror(#property " does not hold"); } \
	:: else \
	fi

/* ---- what the donor keeps ---- */

#define NONE 0     /* no entry; held: a shared reader, who has none, is attached under this generation, which is forgotten with the connection */
#define KNOWN 1    /* granted, and holds, or said goodbye */
#define LAPSED 2
#define OVERTAKEN 3 /* gone, and another could write since */
typedef entry {
	byte is;
	bit held;
	byte inc, low; /* the generation */
	bit here;      /* of a file: granted since it was opened */
	/* of a file: this was noted at the grant, and not again at the end of that opening */
	bit open;
}
entry e[2];  /* the table: in memory's header, or the donor's own while a file is open */
entry m[2];  /* in the file's mark */
entry c[2];  /* in the copy's mark */
#define UP 0
#define STOPPED 1 /* the file has a clean mark; memory is with its holder */
#define CRASHED 2 /* the file's mark says open */
byte donor = UP;
bit written;  /* there was a write since the file was opened: its mark says open */
bit writer_since_open; /* what donors went by before there were these rules */
bit copied;   /* there is a copy; the region's present … */
bit same = 1, same_epoch = 1, same_tenure = 1; /* … contents, epoch, tenure are the copy's */

/* ---- what borrowers keep ---- */

typedef borrower {
	/* The state file. */
	byte inc;      /* incarnation; 0: there is no state */
	bit epoch;     /* it has an epoch */
	/* of a file: the last generation that it learned to be granted, … */
	byte noted_inc, noted_low;
	bit noted_wrote;           /* … and that a write under it was answered */
	bit stale_noted;
	/* The process. */
	bit runs;
	bit granted;   /* it has a connection that was granted */
	byte low;      /* reconnections */
	byte granted_inc, granted_low;
	bit wrote;     /* the same three, which it names when it asks */
	bit stale;
	bit resetting;
	bit ended;     /* was told that it is superseded */
	bit shared;
	/* What is behind it: a cache, a cache file, pages of a kernel, a client's. */
	bit front;     /* there is something that may get dirty without the bridge */
	bit remembers;
	/* How it relates to what the donor has. */
	bit epoch_ok;          /* the donor would take the epoch that the state has */
	bit builds;            /* what it remembers builds on what is there */
	bit overtaken;         /* another's write was answered since */
	bit cause;             /* there is a reason to say ESTALE */
	bit in_lease;          /* its own lease is not over */
	/* How it relates to the copy. */
	bit copy_epoch_ok, copy_builds;
	/*
	 * A write of an earlier session, which the donor has not refused yet, and whether a newer
	 * one is there.
	 */
	bit late, late_is_old;
	bit revoked; /* the donor has no key of its name */
}
borrower b[2];

/* ---- stock clients that reconnect, each of another host ---- */

#define AWAY 0
#define CONNECTED 1
#define CUT 2
typedef stock {
	byte is;
	bit remembers, builds, copy_builds;
	bit tenure_ok;  /* the donor would take the tenure that it knows … */
	bit tenure_now; /* … since that is what the donor tells everybody */
	bit copy_tenure_ok;
}
stock k[2];
#define connected (k[0].is == CONNECTED || k[1].is == CONNECTED)
#define NOBODY 2
byte owner = NOBODY; /* whose the tenure is */

/* ---- a bridge that was superseded ---- */

#define OLD 1
#define JOINED 2 /* it is in its successor's generation */
byte ghost;

byte answer;
#define GRANTED 1
#define BUSY 2       /* another holds it, or may believe so; or its key is revoked */
#define STALE 3      /* what the borrower remembers is gone: until a reset */
#define SUPERSEDED 4 /* a higher generation came: for good, for this process */
#define OVER 5       /* this generation is over: a higher one is welcome */
inline say_answer(x)
{
	printf("%d asks %d.%d", x, b[x].inc, b[x].low);
	if
	:: answer == GRANTED -> printf(": granted")
	:: answer == BUSY -> printf(": busy")
	:: answer == STALE -> printf(": ESTALE")
	:: answer == SUPERSEDED -> printf(": superseded")
	:: answer == OVER -> printf(": over, a higher generation is welcome")
	fi
}

/* Tables. */
inline entry_clear(t) { t.is = NONE; t.held = 0; t.inc = 0; t.low = 0; t.here = 0; t.open = 0 }
inline entry_copy(to, from) { to.is = from.is; to.held = from.held; to.inc = from.inc; to.low = from.low; to.here = from.here; to.open = from.open }
/* The attachments of shared readers are no part of it. */
inline entry_note(to, from)
{
	if :: from.is == NONE -> entry_clear(to) :: else -> entry_copy(to, from) fi
}
inline mark_table() { entry_note(m[0], e[0]); entry_note(m[1], e[1]) }

inline over(x) { k[x].tenure_ok = 0; k[x].tenure_now = 0 }
inline new_tenure() { over(0); over(1); same_tenure = 0; owner = NOBODY }
/* x, of stock clients, is granted the region by the tenure that it knows. */
inline own_tenure(x, y)
{
	if
	:: rule(tenure_owner) && owner != x ->
		if
		:: owner != NOBODY -> over(y); k[x].tenure_now = 0; same_tenure = 0
		:: else -> k[y].tenure_ok = k[y].tenure_now
		fi;
		owner = x
	:: else
	fi
}

/* ---- writes ---- */

/* x, or nobody we know (2), wrote: what others remember is older. */
inline outdate(x, y)
{
	if
	:: x != y && (b[y].epoch || b[y].remembers) ->
		b[y].builds = 0;
		if :: has(leases) && b[y].remembers -> b[y].overtaken = 1 :: else fi
	:: else
	fi;
	if :: b[y].late -> b[y].late_is_old = 1 :: else fi
}

inline landed(x)
{
	outdate(x, 0);
	outdate(x, 1);
	if :: x != 3 -> k[0].builds = (k[0].is == AWAY) :: else fi;
	if :: x != 4 -> k[1].builds = (k[1].is == AWAY) :: else fi;
	same = 0;
	if :: has(file) -> written = 1 :: else fi
}

inline remember(x)
{
	if :: !b[x].remembers -> b[x].builds = 1; b[x].copy_builds = copied && same :: else fi;
	b[x].remembers = 1
}

/* ---- the donor answers ---- */

/* From now on whoever does not hold the region cannot go on. */
inline note_writer(y)
{
	if
	:: e[y].is != NONE && (rule(left) || e[y].is == LAPSED) -> e[y].is = OVERTAKEN
	:: else
	fi;
	if :: !b[y].shared && b[y].epoch -> b[y].cause = 1 :: else fi
}

#define lower(x) (b[x].inc < e[x].inc || (b[x].inc == e[x].inc && b[x].low < e[x].low))
#define equal(x) (b[x].inc == e[x].inc && b[x].low == e[x].low)
/*
 * It knows of a grant that these contents do not know of, or of a write under one of which they
 * know the beginning only.
 */
#define knows_more(x) \
	(rule(granted) && (b[x].granted_inc > e[x].inc || (b[x].granted_inc == e[x].inc && b[x].granted_low > e[x].low)))
#define wrote_more(x) \
	(rule(wrote) && b[x].granted_inc == e[x].inc && b[x].granted_low == e[x].low && b[x].wrote && (e[x].open || !rule(ended)))
/* After a new epoch: another may have a lease that was promised under the old one. */
#define grace_for(y) (rule(grace) && b[y].in_lease && b[y].runs && !b[y].epoch_ok && !b[y].stale)
/* By the rules who names an epoch remembers.  Before, it was who is of the same incarnation. */
#define is_stale(x) \
	((b[x].epoch && !b[x].epoch_ok) || \
	 (!b[x].shared && rule(claim) && b[x].epoch && (e[x].is == NONE || e[x].is == OVERTAKEN)) || \
	 (!b[x].shared && b[x].epoch && has(file) && !e[x].here && (knows_more(x) || wrote_more(x))) || \
	 (!b[x].shared && !rule(claim) && \
		((e[x].is == OVERTAKEN && e[x].inc == b[x].inc) || (e[x].is == NONE && writer_since_open && b[x].low > 0))))
#define is_busy(x, y) \
	((!b[x].shared && ((e[y].held && !b[y].shared) || connected)) || grace_for(y))

/*
 * A shared reader gets no entry.  If there is one, of another mode, its generation is raised; and
 * as shared readers go on with whatever there is, nobody goes on from there.
 */
inline enter_shared(x, its_inc, its_low, names_epoch)
{
	if
	:: e[x].is != NONE ->
		e[x].here = has(file);
		e[x].open = 0;
		if
		:: rule(vouch) -> e[x].is = OVERTAKEN; b[x].cause = 1
		:: !rule(vouch) && !names_epoch -> e[x].is = KNOWN
		:: else
		fi
	:: else
	fi;
	e[x].inc = its_inc;
	e[x].low = its_low
}

#define not_let_in(x) (b[x].revoked && rule(revoked_refused))
inline decide(x, y)
{
	if
	:: not_let_in(x) -> answer = BUSY
	:: !not_let_in(x) && b[x].epoch && !b[x].epoch_ok -> answer = STALE
	:: else ->
		if
		:: lower(x) -> answer = (b[x].inc < e[x].inc -> SUPERSEDED : OVER)
		:: !lower(x) ->
			if
			:: is_stale(x) -> answer = STALE
			:: !is_stale(x) && e[x].is != NONE && equal(x) &&
					(e[x].is == LAPSED || e[x].is == OVERTAKEN || (has(file) && !e[x].here && rule(reopened))) -> answer = OVER
			:: else ->
				if
				:: is_busy(x, y) -> answer = BUSY
				:: else ->
					answer = GRANTED;
					/*
					 * What is left of lower generations is fenced; an equal one
					 * is joined.
					 */
					if :: !equal(x) -> b[x].late = 0; b[x].late_is_old = 0 :: else fi;
					if
					:: b[x].shared -> enter_shared(x, b[x].inc, b[x].low, b[x].epoch)
					:: else ->
						e[x].is = KNOWN;
						e[x].here = has(file);
						e[x].open = 0;
						e[x].inc = b[x].inc;
						e[x].low = b[x].low
					fi;
					e[x].held = 1;
					if :: x == 0 -> ghost = (ghost == JOINED -> 0 : ghost) :: else fi;
					if
					:: !b[x].shared ->
						note_writer(y);
						writer_since_open = has(file) || !rule(claim);
						if :: !b[x].epoch -> new_tenure() :: else fi
					:: else
					fi;
					if :: has(file) && !written && rule(mark_at_grant) -> mark_table() :: else fi
				fi
			fi
		fi
	fi
}

inline lose_connection(x)
{
	if
	:: b[x].granted ->
		b[x].granted = 0;
		b[x].low++;
		b[x].in_lease = has(leases)
	:: else
	fi
}

/*
 * Into the state: before anything is asked under a grant, and before a front-end learns that a
 * write was answered.
 */
inline note_claim(x)
{
	b[x].noted_inc = b[x].granted_inc;
	b[x].noted_low = b[x].granted_low;
	b[x].noted_wrote = b[x].wrote
}

/* The answer reached the bridge, which has it in its state before anything else. */
inline answered(x)
{
	if
	:: answer == GRANTED ->
		b[x].granted = 1;
		b[x].in_lease = 1;
		b[x].cause = 0;
		b[x].stale_noted = 0;
		b[x].resetting = 0;
		b[x].front = 1;
		if
		:: !b[x].epoch ->
			b[x].epoch = 1;
			b[x].epoch_ok = 1;
			b[x].copy_epoch_ok = copied && same_epoch
		:: else
		fi;
		if
		:: has(file) ->
			b[x].granted_inc = b[x].inc;
			b[x].granted_low = b[x].low;
			b[x].wrote = 0;
			if :: rule(granted_noted) || !b[x].noted_inc -> note_claim(x) :: else fi
		:: else
		fi;
		if :: !b[x].remembers -> b[x].builds = 1; b[x].copy_builds = copied && same; b[x].overtaken = 0 :: else fi
	:: answer == STALE ->
		must(L, b[x].cause);
		b[x].stale = 1;
		b[x].stale_noted = rule(stale_kept);
		b[x].resetting = 0;
		b[x].remembers = 0;
		b[x].builds = 0;
		b[x].copy_builds = 0;
		b[x].overtaken = 0;
		b[x].in_lease = 0
	:: answer == SUPERSEDED -> b[x].ended = 1
	:: answer == OVER -> b[x].low++
	:: else
	fi
}

/* ---- the donor stops ---- */

inline end_sessions()
{
	lose_connection(0);
	lose_connection(1);
	b[0].late = 0; b[0].late_is_old = 0;
	b[1].late = 0; b[1].late_is_old = 0;
	if :: k[0].is == CONNECTED -> k[0].is = CUT :: else fi;
	if :: k[1].is == CONNECTED -> k[1].is = CUT :: else fi;
	if :: ghost == JOINED -> ghost = 0 :: else fi;
	if :: e[0].is == NONE -> entry_clear(e[0]) :: else fi;
	if :: e[1].is == NONE -> entry_clear(e[1]) :: else fi
}

inline end_opening(x)
{
	if :: e[x].here -> e[x].here = 0; e[x].open = 0 :: else fi
}

/* A file is closed with all it has on disk, … */
inline close_file()
{
	end_opening(0);
	end_opening(1);
	if
	:: !rule(table) -> entry_clear(m[0]); entry_clear(m[1])
	:: rule(table) && (written || rule(mark_at_stop)) -> mark_table()
	:: else
	fi;
	written = 0
}

/* … and opened with a clean mark. */
inline open_file()
{
	entry_copy(e[0], m[0]);
	entry_copy(e[1], m[1]);
	if :: e[0].here -> e[0].here = 0; e[0].open = 1 :: else fi;
	if :: e[1].here -> e[1].here = 0; e[1].open = 1 :: else fi;
	if :: !rule(held) -> e[0].held = 0; e[1].held = 0 :: else fi;
	writer_since_open = 0;
	if :: rule(tenure_opening) -> new_tenure() :: else fi
}

inline lose_contents(x)
{
	b[x].epoch_ok = 0;
	if :: b[x].epoch -> b[x].cause = 1; b[x].builds = 0 :: else fi
}

inline new_epoch()
{
	lose_contents(0);
	lose_contents(1);
	k[0].builds = (k[0].is == AWAY);
	k[1].builds = (k[1].is == AWAY);
	new_tenure();
	same = 0;
	same_epoch = 0;
	written = 0;
	writer_since_open = 0;
	entry_clear(e[0]); entry_clear(e[1]);
	entry_clear(m[0]); entry_clear(m[1])
}

inline take_copy(x)
{
	b[x].copy_epoch_ok = b[x].epoch && b[x].epoch_ok;
	b[x].copy_builds = b[x].builds
}

inline put_copy_back(x)
{
	b[x].epoch_ok = b[x].copy_epoch_ok;
	b[x].builds = b[x].copy_builds;
	if :: b[x].epoch -> b[x].cause = 1 :: else fi
}

/* ---- bridges ---- */

inline bridge_is_gone(x)
{
	b[x].runs = 0;
	lose_connection(x);
	b[x].low = 0;
	b[x].stale = 0;
	b[x].resetting = 0;
	b[x].ended = 0;
	b[x].in_lease = 0;
	b[x].overtaken = 0;
	b[x].granted_inc = b[x].noted_inc;
	b[x].granted_low = b[x].noted_low;
	b[x].wrote = b[x].noted_wrote
}

/* It does not hold the region any more: what was on its way is fenced. */
inline let_go(x)
{
	e[x].held = 0;
	if :: e[x].is == NONE -> entry_clear(e[x]) :: else fi;
	b[x].late = 0; b[x].late_is_old = 0
}

/*
 * weft detach, or its machine restarted: the next one of this name is somebody new.  An entry that
 * is still held lapses.
 */
inline forget(x)
{
	bridge_is_gone(x);
	b[x].inc = 0;
	b[x].epoch = 0;
	b[x].stale_noted = 0;
	b[x].shared = 0;
	b[x].front = 0;
	b[x].remembers = 0;
	b[x].epoch_ok = 0; b[x].builds = 0; b[x].cause = 0;
	b[x].granted_inc = 0; b[x].granted_low = 0; b[x].wrote = 0; note_claim(x);
	b[x].copy_epoch_ok = 0; b[x].copy_builds = 0;
	b[x].late = 0; b[x].late_is_old = 0;
	entry_clear(e[x]); entry_clear(m[x]); entry_clear(c[x]);
	if :: x == 0 -> ghost = 0 :: else fi
}

#define can_ask(x) (exists(x) && donor == UP && b[x].runs && !b[x].granted && !b[x].stale && !b[x].ended && \
	c_expr { now.b[x].low < nr_reconnections })

#define BRIDGE(x, y) \
:: d_step { exists(x) && !b[x].runs && b[x].inc == 0 -> \
	printf("%d attaches\n", x); \
	b[x].runs = 1; b[x].inc = 1 } \
:: d_step { exists(x) && has(shared) && !b[x].runs && b[x].inc == 0 -> \
	printf("%d attaches with --shared\n", x); \
	b[x].runs = 1; b[x].inc = 1; b[x].shared = 1 } \
:: d_step { exists(x) && has(killing) && !b[x].runs && b[x].inc != 0 && c_expr { now.b[x].inc < nr_incarnations || !rule_noted } -> \
	printf("%d is taken over\n", x); \
	b[x].runs = 1; \
	if :: rule(noted) -> b[x].inc++ :: else fi; \
	b[x].stale = b[x].stale_noted } \
:: d_step { exists(x) && has(shared) && !rule(same_mode) && !b[x].runs && b[x].inc != 0 && \
		c_expr { now.b[x].inc < nr_incarnations } -> \
	printf("%d is taken over in another mode\n", x); \
	b[x].runs = 1; b[x].inc++; b[x].shared = !b[x].shared; b[x].stale = b[x].stale_noted } \
:: d_step { can_ask(x) -> \
	decide(x, y); \
	say_answer(x); printf("\n"); \
	answered(x); \
	answer = 0 } \
/* Refusals that get lost change nothing. */ \
:: d_step { can_ask(x) && !is_stale(x) && !not_let_in(x) -> \
	decide(x, y); \
	say_answer(x); printf(", but the answer is lost\n"); \
	answer = 0 } \
:: d_step { b[x].granted && (!b[x].remembers || !b[x].builds || (b[x].copy_builds && !same)) -> \
	printf("%d reads\n", x); \
	must(K, !b[x].revoked); \
	must(S1, b[x].shared || !b[x].remembers || b[x].builds); \
	remember(x); \
	if :: !same -> b[x].copy_builds = 0 :: else fi } \
:: d_step { b[x].granted && !b[x].shared -> \
	printf("%d writes\n", x); \
	must(K, !b[x].revoked); \
	must(S1, !b[x].remembers || b[x].builds); \
	remember(x); \
	landed(x); \
	b[x].copy_builds = 0; \
	if \
	:: has(file) -> b[x].wrote = 1; if :: rule(wrote_noted) -> note_claim(x) :: else fi \
	:: else \
	fi } \
:: d_step { b[x].runs && b[x].remembers && !b[x].stale && !b[x].shared && (b[x].in_lease || !rule(lease)) && \
		(b[x].overtaken || (!b[x].in_lease && b[x].epoch)) -> \
	printf("%d answers from what it remembers\n", x); \
	must(S2, false) } \
:: d_step { b[x].granted -> printf("%d loses its connection\n", x); lose_connection(x) } \
:: d_step { b[x].granted && !b[x].shared && has(late) -> \
	printf("%d sends a write, and loses its connection\n", x); \
	remember(x); lose_connection(x); b[x].late = 1; b[x].late_is_old = 0 } \
:: d_step { b[x].late && e[x].held -> \
	printf("a late write of %d\n", x); \
	must(K, !b[x].revoked); \
	must(Z, !b[x].late_is_old); \
	b[x].late = 0; b[x].late_is_old = 0; \
	landed(x) } \
:: d_step { has(killing) && b[x].runs -> printf("%d is killed\n", x); bridge_is_gone(x) } \
:: d_step { has(killing) && b[x].granted && !b[x].shared && has(late) -> \
	printf("%d sends a write, and is killed\n", x); \
	bridge_is_gone(x); b[x].late = 1; b[x].late_is_old = 0 } \
:: d_step { has(killing) && b[x].granted -> \
	printf("%d says goodbye, and leaves a cache file\n", x); \
	bridge_is_gone(x); let_go(x) } \
:: d_step { has(killing) && donor == UP && !b[x].runs && b[x].inc != 0 && !b[x].shared && \
		e[x].is != NONE && !not_let_in(x) -> \
	printf("weft detach says goodbye for %d, and is killed before its state is removed\n", x); \
	enter_shared(x, b[x].inc + 1, 0, 0); \
	let_go(x); \
	if :: has(file) && !written && rule(mark_at_grant) -> mark_table() :: else fi } \
:: d_step { b[x].inc != 0 -> printf("%d is detached\n", x); forget(x) } \
:: d_step { has(power) && b[x].inc != 0 && b[x].epoch && !b[x].shared -> \
	printf("the machine of %d restarts\n", x); \
	if \
	:: rule(boot) -> forget(x) \
	:: else -> bridge_is_gone(x); b[x].remembers = 1; b[x].builds = 0; b[x].copy_builds = 0 \
	fi } \
/* Rows are as new as what the donor has; pages behind the device are gone, and the state is. */ \
:: d_step { has(power) && has(sealed) && b[x].inc != 0 && b[x].epoch && !b[x].shared -> \
	printf("the machine of %d restarts, and its sealed contents go on\n", x); \
	bridge_is_gone(x); \
	b[x].front = 0; \
	if \
	:: b[x].stale_noted -> \
		b[x].remembers = 0; b[x].builds = 0; b[x].copy_builds = 0; b[x].stale_noted = 0 \
	:: else \
	fi; \
	if \
	:: !rule(file_noted) -> \
		b[x].granted_inc = 0; b[x].granted_low = 0; b[x].wrote = 0; note_claim(x) \
	:: else \
	fi } \
:: d_step { donor == UP && e[x].held && !b[x].granted && (!b[x].in_lease || !rule(clock) || !rule(lease)) -> \
	printf("the lease of %d is over at the donor\n", x); \
	if :: e[x].is != NONE && e[x].is != OVERTAKEN -> e[x].is = LAPSED :: else fi; \
	let_go(x); \
	if :: x == 0 && ghost == JOINED -> ghost = 0 :: else fi } \
:: d_step { b[x].in_lease && !b[x].granted -> \
	printf("the lease of %d is over\n", x); \
	b[x].in_lease = 0; b[x].overtaken = b[x].overtaken && !rule(lease) } \
:: d_step { has(reset) && !b[x].granted && !b[x].remembers && !b[x].shared && b[x].front && \
		!(b[x].resetting && rule(reset_quiet)) -> \
	printf("a page behind %d becomes dirty\n", x); \
	b[x].remembers = 1 } \
:: d_step { has(reset) && b[x].runs && b[x].stale && c_expr { now.b[x].inc < nr_incarnations } -> \
	printf("%d is reset\n", x); \
	if :: rule(reset_drops) -> b[x].remembers = 0 :: else fi; \
	b[x].inc++; b[x].low = 0; b[x].epoch = 0; b[x].epoch_ok = 0; b[x].cause = 0; \
	b[x].granted_inc = 0; b[x].granted_low = 0; b[x].wrote = 0; note_claim(x); \
	b[x].stale = 0; b[x].resetting = 1 } \
:: d_step { has(keys) && b[x].inc != 0 && !b[x].revoked -> \
	printf("the key of %d is revoked\n", x); \
	b[x].revoked = 1; \
	if \
	:: rule(revoked_fenced) -> lose_connection(x); b[x].late = 0; b[x].late_is_old = 0 \
	:: else \
	fi; \
	if \
	:: !rule(revoked_lease) && e[x].held -> \
		if :: e[x].is != NONE && e[x].is != OVERTAKEN -> e[x].is = LAPSED :: else fi; \
		let_go(x) \
	:: else \
	fi } \
:: d_step { b[x].revoked -> \
	printf("%d gets another key of the same name\n", x); \
	b[x].revoked = 0 } \
:: d_step { has(evict) && e[x].is != NONE && !e[x].held -> \
	printf("the donor forgets %d\n", x); \
	entry_clear(e[x]); \
	if :: b[x].epoch -> b[x].cause = 1 :: else fi }

#define free_for_stock (donor == UP && !(e[0].held && !b[0].shared) && !(e[1].held && !b[1].shared) && !grace_for(0) && !grace_for(1))

/* What every grant to a stock client that writes does. */
#define note_stock() \
	note_writer(0); note_writer(1); writer_since_open = has(file) || !rule(claim); \
	if :: has(file) && !written && rule(mark_at_grant) -> mark_table() :: else fi
/* Stock client x, and y of another host. */
#define free_for(y) (free_for_stock && k[y].is != CONNECTED)
#define STOCK(x, y) \
:: d_step { has(blind) && (x == 0 || has(hosts)) && k[x].is == AWAY && free_for(y) -> \
	printf("stock client %d comes by NAME@TENURE\n", x); \
	note_stock(); \
	k[x].is = CONNECTED; k[x].remembers = 0; k[x].builds = 1; k[x].copy_builds = 1; \
	k[x].tenure_ok = 1; k[x].tenure_now = 1; \
	own_tenure(x, y); \
	k[x].copy_tenure_ok = copied && same_tenure } \
:: d_step { k[x].is == CONNECTED -> \
	printf("stock client %d reads\n", x); \
	must(S1, !k[x].remembers || k[x].builds); \
	if :: !k[x].remembers -> k[x].builds = 1 :: else fi; \
	k[x].remembers = 1; \
	if :: !same -> k[x].copy_builds = 0 :: else fi } \
:: d_step { k[x].is == CONNECTED -> \
	printf("stock client %d writes\n", x); \
	must(S1, !k[x].remembers || k[x].builds); \
	k[x].remembers = 1; k[x].builds = 1; k[x].copy_builds = 0; \
	landed(3 + x) } \
:: d_step { k[x].is == CONNECTED -> printf("stock client %d is cut off\n", x); k[x].is = CUT } \
:: d_step { k[x].is == CUT && free_for(y) && (k[x].tenure_ok || !rule(tenure)) -> \
	printf("stock client %d reconnects\n", x); \
	note_stock(); \
	own_tenure(x, y); \
	k[x].is = CONNECTED } \
:: d_step { k[x].is != AWAY -> \
	printf("stock client %d ends, or is refused\n", x); \
	k[x].is = AWAY; k[x].remembers = 0; k[x].builds = 1; k[x].copy_builds = 0; \
	over(x); k[x].copy_tenure_ok = 0 }

active proctype world()
{
	do
	BRIDGE(0, 1)
	BRIDGE(1, 0)

	/* ---- a bridge that sleeps while another takes over its name, and wakes up ---- */
	:: d_step { has(two) && ghost == 0 && b[0].runs && b[0].epoch && !b[0].stale ->
		printf("0 is suspended, and another takes over its state\n");
		ghost = OLD;
		bridge_is_gone(0) }
	:: d_step { ghost == OLD && donor == UP && b[0].granted ->
		printf("the old bridge of 0 asks, and is refused\n");
		ghost = (rule(superseded) -> 0 : JOINED) }
	:: d_step { ghost == JOINED && b[0].granted ->
		printf("the old bridge of 0 writes in the generation of the new one\n");
		landed(2) }

	/* ---- a stranger who knows the id of 0, and has another identity ---- */
	:: d_step { has(stranger) && rule(bound) && free_for_stock && !connected ->
		printf("a stranger says the id of 0, and is somebody else; writes and goes\n");
		note_writer(0); note_writer(1); new_tenure();
		writer_since_open = has(file) || !rule(claim);
		if :: has(file) && !written && rule(mark_at_grant) -> mark_table() :: else fi;
		landed(2) }
	:: d_step { has(stranger) && !rule(bound) && donor == UP && e[0].is == KNOWN && e[0].held ->
		printf("a stranger says id and generation of 0, joins it, and writes\n");
		landed(2) }

	/* ---- stock clients ---- */
	:: d_step { has(stock) && free_for_stock && !connected ->
		printf("a stock client comes by the plain name, and goes\n");
		note_writer(0); note_writer(1); writer_since_open = has(file) || !rule(claim); new_tenure();
		if :: has(file) && !written && rule(mark_at_grant) -> mark_table() :: else fi }
	:: d_step { has(stock) && free_for_stock && !connected ->
		printf("a stock client comes by the plain name, writes and goes\n");
		note_writer(0); note_writer(1); writer_since_open = has(file) || !rule(claim); new_tenure();
		if :: has(file) && !written && rule(mark_at_grant) -> mark_table() :: else fi;
		landed(2) }
	STOCK(0, 1)
	STOCK(1, 0)

	/* ---- the donor ---- */
	:: d_step { has(restart) && donor == UP ->
		printf("the donor stops cleanly\n");
		end_sessions();
		if :: has(file) -> close_file() :: else fi;
		donor = STOPPED }
	:: d_step { has(restart) && donor == UP && has(file) ->
		printf("the donor is killed\n");
		end_sessions();
		if
		:: written -> new_epoch(); donor = CRASHED
		:: else -> donor = STOPPED
		fi }
	:: d_step { has(restart) && !has(file) && donor == UP ->
		printf("the donor's machine restarts\n");
		end_sessions();
		new_epoch() }
	:: d_step { donor != UP ->
		printf("the donor starts\n");
		if
		:: has(file) -> open_file()
		:: !has(file) && !rule(owner_kept) -> owner = NOBODY
		:: else
		fi;
		donor = UP }
	:: d_step { has(closing) && donor == UP && !e[0].held && !e[1].held && !connected ->
		printf("the file is closed, and opened again\n");
		end_sessions();
		close_file();
		open_file() }
	:: d_step { has(copy) && (donor == STOPPED || (has(live) && donor == UP && !written)) ->
		printf("the file is copied\n");
		copied = 1; same = 1; same_epoch = 1; same_tenure = 1;
		entry_copy(c[0], m[0]); entry_copy(c[1], m[1]);
		take_copy(0); take_copy(1);
		k[0].copy_builds = k[0].builds; k[0].copy_tenure_ok = k[0].tenure_ok;
		k[1].copy_builds = k[1].builds; k[1].copy_tenure_ok = k[1].tenure_ok }
	:: d_step { copied && donor != UP ->
		printf("the copy is put back\n");
		same = 1; same_epoch = 1; same_tenure = 1;
		entry_copy(m[0], c[0]); entry_copy(m[1], c[1]);
		put_copy_back(0); put_copy_back(1);
		k[0].builds = k[0].copy_builds; k[0].tenure_ok = k[0].copy_tenure_ok;
		k[1].builds = k[1].copy_builds; k[1].tenure_ok = k[1].copy_tenure_ok;
		donor = STOPPED }
	od
}
