/* SPDX-License-Identifier: MIT */
/*
 * An example of a plugin of Slurm: srun and sbatch get --weft=SIZE[,copies=N][,as=FORM], which the
 * prolog finds as $SPANK_WEFT.  In plugstack.conf:
 *
 *     optional /usr/local/lib/slurm/spank-weft.so
 *
 * To build it, with Slurm's headers:  cc -fPIC -shared -o spank-weft.so spank-weft.c
 */
#include <slurm/spank.h>
#include <stdio.h>
#include <string.h>

SPANK_PLUGIN(weft, 1);

/* Slurm sets it before slurm_spank_init_post_opt(), in srun, sbatch and salloc. */
static char wanted[128];

static int take(int value, const char *text, int is_remote)
{
	if (!text || strlen(text) + sizeof("weft=") > sizeof(wanted)) {
		slurm_error("--weft wants SIZE[,copies=N][,as=FORM]");
		return ESPANK_BAD_ARG;
	}
	snprintf(wanted, sizeof(wanted), "weft=%s", text);
	return ESPANK_SUCCESS;
}

static struct spank_option option = {
	.name = "weft",
	.arginfo = "SIZE[,copies=N][,as=FORM]",
	.usage = "memory of other nodes, for each node of the job",
	.has_arg = 1,
	.cb = take,
};

int slurm_spank_init(spank_t spank, int argc, char **argv)
{
	return spank_option_register(spank, &option);
}

int slurm_spank_init_post_opt(spank_t spank, int argc, char **argv)
{
	const spank_context_t context = spank_context();

	if (!wanted[0] || (context != S_CTX_LOCAL && context != S_CTX_ALLOCATOR))
		return ESPANK_SUCCESS;
	return spank_job_control_setenv(spank, "WEFT", wanted, 1);
}
