/*
 * limits.h - every bound in one place. A peer that passes one gets ERR_TOO_LARGE with the
 * bound's name; the sender checks as well, so that a violation is an error and not a cut line.
 */
#ifndef CLOISTER_COMMON_LIMITS_H
#define CLOISTER_COMMON_LIMITS_H

/* Messages */
#define LIMIT_FRAME_BYTES        (16u << 20) /* one nng message, either way */
#define LIMIT_PROMPT_BYTES       (8u << 20)  /* all text of one job */
#define LIMIT_CHAT_MESSAGES      4096u       /* messages of one chat job */
#define LIMIT_NAME_BYTES         128u        /* node, model, tenant, label names */
#define LIMIT_STOP_STRINGS       16u
#define LIMIT_STOP_BYTES         256u /* one stop string */
#define LIMIT_STOP_TOKENS        64u
#define LIMIT_LOGIT_BIASES       1024u /* ids of one job whose logits are shifted */
#define LIMIT_TOP_LOGPROBS       20u   /* likeliest tokens told beside the drawn one */
#define LIMIT_LOGPROB_BYTES      256u  /* of a token's own bytes, beside its logprob */
#define LIMIT_LOGPROBS_BYTES     8192u /* all logprobs of one token, packed */
#define LIMIT_COMPLETIONS        128u  /* answers to one prompt, asked for at once */
#define LIMIT_ERROR_TEXT_BYTES   1024u
#define LIMIT_GPUS_PER_WORKER    1u /* a process each */
#define LIMIT_MODELS_PER_WORKER  256u
#define LIMIT_WORKER_THREADS     1024u               /* that compute, of one worker */
#define LIMIT_READ_BYTES_PER_S   1000000000000000ull /* of a device's memory */
#define LIMIT_LEASES_PER_WORKER  1024u
#define LIMIT_COMMANDS_PER_PULL  64u
#define LIMIT_PROGRESS_PER_FRAME 1024u  /* leases reported in one Report */
#define LIMIT_TOKENS_PER_FRAME   65536u /* tokens of one lease in one Report, or of one Watch */
#define LIMIT_TOKENS_PER_KIB     8192u  /* that 1024 bytes of a prompt can become */
#define LIMIT_LIST_ROWS          1000u  /* jobs, ledger records a page */
#define LIMIT_CANDIDATES         4096u  /* rows of one explanation */
#define LIMIT_GANG_ADDRESS_BYTES 4096u  /* of one rank, for the others */
#define LIMIT_SHAPE_BYTES        4096u  /* of a model, packed: some hundred kinds of layers */
#define LIMIT_MODELS             4096u  /* different ones in a cluster */
#define LIMIT_USAGE_ROWS         16384u /* of usage, a page */
#define LIMIT_REASONS            64u    /* reasons for not being healthy */
#define LIMIT_CHECKPOINT_BYTES   8192u  /* a signed note with its cosignatures */
#define LIMIT_DECODE_BYTES       (48u << 20) /* arena for one decoded message */

/* Jobs */
#define LIMIT_MAX_TOKENS     (1u << 20) /* max_tokens of one job */
#define LIMIT_CONTEXT_TOKENS (1u << 20)
#define LIMIT_ATTEMPTS       8u /* before a job that kills workers is quarantined */
#define LIMIT_DEADLINE_MS    (30ull * 24 * 3600 * 1000)
#define LIMIT_POLL_MS        30000u /* longest parked Pull or Watch */

/* Store and ledger */
#define LIMIT_STORE_KEY_BYTES     128u
#define LIMIT_LEDGER_RECORD_BYTES 65535u /* C2SP entry bundle: 16-bit length */

/* To the coordinator, where the system has the files for them */
#define LIMIT_CONNECTIONS 32768u

/* Cluster */
#define LIMIT_WORKERS 16384u
#define LIMIT_TENANTS 65536u

_Static_assert(LIMIT_PROMPT_BYTES < LIMIT_FRAME_BYTES, "a prompt must fit its frame");
_Static_assert((LIMIT_TOP_LOGPROBS + 1) * (LIMIT_LOGPROB_BYTES + 24u) < LIMIT_LOGPROBS_BYTES,
               "a token's logprobs must fit");
_Static_assert(LIMIT_TOKENS_PER_FRAME * 16u < LIMIT_FRAME_BYTES, "tokens must fit their frame");

#endif
