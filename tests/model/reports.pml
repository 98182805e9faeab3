/* SPDX-License-Identifier: MIT */
/*
 * A chunk that is copied while two sessions write it, each with one-sided writes, which nobody at
 * the donor sees: what the sessions say of them, for spin.  README.md has it in words.
 *
 * A session has a byte at the donor for the chunk.  Its card does what it is told in order: the
 * byte says "open", the write lands, in two halves, the byte says "closed".  The copy has no value
 * but whether it is the same as the chunk.
 *
 *     SETTING="reports cuts without-open check-W" ./pan …
 */

c_decl {

	/* What there is in the world, … */
	#define WORLD(X) \
		X(cuts) /* sessions are lost, between any two steps of their cards */
	/* … the rules, … */
	#define RULES(X) \
		X(opened) X(stays) X(apart) X(kept) X(ended)
	/* … and what must hold. */
	#define PROPERTIES(X) X(W)

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
		return !strcmp(word, "reports");
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

/* What a session's byte says. */
#define NOTHING 0
#define OPEN 1
#define CLOSED 2
byte said[2];

/* The session. */
#define GRANTED 0 /* its card does what it is told */
#define LOST 1    /* the donor knows that it is over, and its card may still go on */
#define ENDED 2   /* nothing of it lands any more */
byte session[2];
byte step[2];     /* of its card: idle, said "open", half of the write landed, all of it did */

/* The donor. */
bit changed;      /* of sessions that are no more */
bit frozen;       /* all sessions have ended, and nobody is granted one */
bit last;         /* it was asked for the last time what changed */
bit over;

/* The taker. */
bit dirty = 1;    /* it is about to read the chunk */
bit same;         /* its copy is what the chunk is */

inline say(x, what)
{
	if
	:: rule(apart) -> said[x] = what
	:: else -> said[0] = what
	fi
}

/* What the donor tells, and forgets. */
inline take(x)
{
	if
	:: said[x] != NOTHING -> dirty = 1
	:: else
	fi;
	if
	:: said[x] == CLOSED || !rule(stays) -> said[x] = NOTHING
	:: else
	fi
}

/* The donor lets go of a session's bytes, and remembers what they said. */
inline keep(x)
{
	if
	:: said[x] != NOTHING -> changed = 1; said[x] = NOTHING
	:: else
	fi
}

#define SESSION(x) \
:: d_step { session[x] != ENDED && step[x] == 0 && session[x] == GRANTED -> \
	printf("session %d says that it is about to write\n", x); \
	if :: rule(opened) -> say(x, OPEN) :: else fi; \
	step[x] = 1 } \
:: d_step { session[x] != ENDED && step[x] == 1 -> \
	printf("half of the write of session %d lands\n", x); \
	same = 0; step[x] = 2 } \
:: d_step { session[x] != ENDED && step[x] == 2 -> \
	printf("the other half of the write of session %d lands\n", x); \
	same = 0; step[x] = 3 } \
:: d_step { session[x] != ENDED && step[x] == 3 -> \
	printf("session %d says that it has written\n", x); \
	say(x, CLOSED); \
	step[x] = 0 } \
:: d_step { session[x] == GRANTED && (has(cuts) || frozen) -> \
	printf("session %d is lost\n", x); \
	session[x] = LOST; \
	if :: !rule(kept) -> keep(x) :: else fi } \
:: d_step { session[x] == LOST -> \
	printf("session %d has ended\n", x); \
	session[x] = ENDED; \
	if :: rule(kept) -> keep(x) :: else fi } \
:: d_step { session[x] == ENDED && !frozen && has(cuts) -> \
	printf("session %d is granted anew\n", x); \
	step[x] = 0; session[x] = GRANTED }

#define all_ended (session[0] == ENDED && session[1] == ENDED)

active proctype world()
{
	do
	SESSION(0)
	SESSION(1)

	:: d_step { !frozen && !dirty ->
		printf("the taker asks what changed\n");
		take(0); take(1);
		if :: changed -> dirty = 1; changed = 0 :: else fi }
	:: d_step { dirty ->
		printf("the taker reads the chunk\n");
		same = 1; dirty = 0 }
	:: d_step { !frozen ->
		printf("the region is frozen\n");
		frozen = 1 }
	:: d_step { frozen && !last && (all_ended || !rule(ended)) ->
		printf("the taker asks what changed, for the last time\n");
		last = 1;
		take(0); take(1);
		if :: changed -> dirty = 1; changed = 0 :: else fi }
	:: d_step { last && !dirty && all_ended && !over ->
		printf("the taker has all\n");
		over = 1;
		if
		:: !same -> c_code { if (check_W) uerror("W does not hold"); }
		:: else
		fi }
	:: d_step { over -> skip }
	od
}
