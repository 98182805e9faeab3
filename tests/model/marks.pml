/* SPDX-License-Identifier: MIT */
/*
 * Which state of a region a follower may trust: the mark, for spin.  README.md has it in words.
 *
 * A program writes to a file of two blocks, in any order and at any time.  A pusher makes a region
 * the same, pass by pass; a follower reads the region and shows what the mark says it may.  A block
 * has a value that only goes up, so that each state of the file is one that was, or never was; what
 * another writer leaves in the region never was in the file.
 *
 * A mark is a number that only goes up: even, it is set.  Here it has no value: only whether it is
 * even, and whether it is still the one that somebody was told.
 *
 *     SETTING="restart kill other without-twice check-F" ./pan …
 */

c_decl {

	/* What there is in the world, … */
	#define WORLD(X) \
		X(restart) /* the donor ends and starts; contents and epoch are the same */ \
		X(kill)    /* pushers are killed at any step */ \
		X(other)   /* a writer that knows of no marks, while no pusher holds the region */ \
		X(threads) /* a pusher goes on before it knows that its mark was set */
	/* … the rules, … */
	#define RULES(X) \
		X(grant_raises) X(begun) X(settled) X(checked) X(even) X(twice) X(fresh)
	/* … and what must hold. */
	#define PROPERTIES(X) X(F)

	#define DECLARE_WORLD(name) static int has_##name;
	#define DECLARE_RULE(name) static int rule_##name = 1;
	#define DECLARE_PROPERTY(name) static int check_##name;
	WORLD(DECLARE_WORLD)
	RULES(DECLARE_RULE)
	PROPERTIES(DECLARE_PROPERTY)

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
		return !strcmp(word, "marks");
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

/* The file: values 0 to 2, and which pairs of them were in it. */
#define VALUES 3
#define FOREIGN 3  /* another writer's */
#define UNKNOWN 4
byte f[2];
short was = 1;
inline note_state() { was = was | (1 << (f[0] * VALUES + f[1])) }

/* The donor. */
byte g[2];
bit set;          /* the mark is even */
bit again;        /* its number began anew, and may come to one that somebody was told */

/* The pusher. */
bit pushes;
byte known[2];    /* what it knows the region to have */
byte at;          /* the block that its pass is at */
bit changed;      /* this pass found something */
bit complete;     /* a pass before this one reached the end */
byte taken;       /* the value that it read; UNKNOWN: it is still to be read */
bit open;         /* it has raised the mark, and not set it since */
bit ours;         /* the mark has the number that it was told then */
bit flies;        /* a write of it is on its way, … */
byte to, value;
bit setting, setting_ok; /* the question to set the mark is; it has the present number */

/* The follower. */
#define IDLE 0
#define READS 1
byte follower = IDLE;
byte h[2];
byte read_at;
bit told_set;     /* the mark was even when it asked */
bit same;         /* and has the same number still */

inline another_number() { ours = 0; same = 0; setting_ok = 0 }
inline raise() { set = 0; another_number() }
inline forget_pusher()
{
	pushes = 0; at = 0; changed = 0; complete = 0; taken = UNKNOWN; open = 0;
	known[0] = UNKNOWN; known[1] = UNKNOWN
}

#define PROGRAM(x) \
:: d_step { f[x] < VALUES - 1 -> \
	printf("the program writes block %d\n", x); \
	f[x]++; note_state() }

active proctype world()
{
	taken = UNKNOWN; known[0] = UNKNOWN; known[1] = UNKNOWN;
	do
	PROGRAM(0)
	PROGRAM(1)

	/* ---- the donor grants ---- */
	:: d_step { !pushes ->
		printf("a pusher is granted the region\n");
		flies = 0; setting = 0;
		forget_pusher();
		pushes = 1;
		if :: rule(grant_raises) -> raise() :: else fi }
	:: d_step { has(other) && !pushes ->
		printf("another is granted the region, writes and goes\n");
		flies = 0; setting = 0;
		if :: rule(grant_raises) -> raise() :: else fi;
		g[0] = FOREIGN }
	:: d_step { has(restart) ->
		printf("the donor restarts\n");
		/* What was not answered is sent again, unless who sent it is gone. */
		flies = flies && pushes; setting = setting && pushes;
		set = 0;
		another_number();
		again = !rule(fresh) }

	/* ---- the pusher ---- */
	:: d_step { pushes && taken == UNKNOWN && at < 2 && !flies ->
		printf("the pusher reads block %d\n", at);
		taken = f[at];
		if
		:: taken == known[at] -> at++; taken = UNKNOWN
		:: else
		fi }
	:: d_step { pushes && taken != UNKNOWN && !flies && !open && rule(begun) ->
		printf("the pusher raises the mark\n");
		raise();
		open = 1; ours = 1 }
	:: d_step { pushes && taken != UNKNOWN && !flies && (open || !rule(begun)) &&
			(!setting || has(threads)) ->
		printf("the pusher sends block %d\n", at);
		flies = 1; to = at; value = taken;
		open = 1;
		changed = 1; known[at] = taken; at++; taken = UNKNOWN }
	:: d_step { flies ->
		printf("the donor writes block %d\n", to);
		g[to] = value; flies = 0 }
	:: d_step { pushes && at == 2 && !flies && (changed || !complete) ->
		printf("the pusher's pass found something, or was its first\n");
		if
		:: !rule(settled) && open && ours -> setting = 1; setting_ok = 1; open = 0
		:: else
		fi;
		at = 0; changed = 0; complete = 1 }
	:: d_step { pushes && at == 2 && !flies && !changed && complete && (!open || !ours) &&
			!setting ->
		printf("the pusher raises the mark, to set it\n");
		raise();
		open = 1; ours = 1 }
	:: d_step { pushes && at == 2 && !flies && !changed && complete && open &&
			(ours || !rule(begun)) && !setting ->
		printf("the pusher's pass found nothing: it asks to set the mark\n");
		setting = 1; setting_ok = 1; open = 0;
		at = 0 }
	:: d_step { setting && (setting_ok || !rule(checked)) ->
		printf("the donor sets the mark\n");
		setting = 0;
		set = 1;
		another_number();
		if :: again && told_set -> same = 1 :: else fi }
	:: d_step { setting && !setting_ok && rule(checked) ->
		printf("the donor refuses to: it was raised since\n");
		setting = 0 }
	:: d_step { has(kill) && pushes ->
		printf("the pusher is killed\n");
		forget_pusher() }

	/* ---- the follower ---- */
	:: d_step { follower == IDLE && (set || !rule(even)) ->
		printf("the follower asks for the mark: %d\n", set);
		follower = READS; read_at = 0; told_set = set; same = 1 }
	:: d_step { follower == READS && read_at < 2 ->
		printf("the follower reads block %d: %d\n", read_at, g[read_at]);
		h[read_at] = g[read_at]; read_at++ }
	:: d_step { follower == READS && read_at == 2 ->
		if
		:: same || !rule(twice) ->
			printf("the follower asks again, and shows %d %d\n", h[0], h[1]);
			if
			:: h[0] == FOREIGN || h[1] == FOREIGN ||
					!(was & (1 << (h[0] * VALUES + h[1]))) ->
				c_code { if (check_F) uerror("F does not hold"); }
			:: else
			fi
		:: else -> printf("the follower asks again: another mark\n")
		fi;
		follower = IDLE; h[0] = 0; h[1] = 0; read_at = 0 }
	od
}
