/* cloister-engine: the engine without a cluster. See docs/engine.md and cloister-engine(1). */
#include "worker/engine_tool/tool.h"

#include "common/crypto.h"
#include "common/version.h"
#include "worker/model/hparams.h"

#include <string.h>

static const char help[] =
    "Usage: cloister-engine COMMAND FILE.gguf [options]\n"
    "\n"
    "  info FILE [--json]          what the file holds, what it needs, whether this build runs it\n"
    "  digest FILE                 SHA-256 of the file\n"
    "  tokenize FILE               text on standard input to token ids\n"
    "      --special               control tokens in the text become their ids\n"
    "      --json | --jsonl        a JSON list; or a JSON string a line in, a list a line out\n"
    "  detokenize FILE             token ids on standard input to text, byte for byte\n"
    "      --special               control tokens become their text\n"
    "      --json | --jsonl        a JSON string; or a list a line in, a string a line out\n"
    "  generate FILE               an answer\n"
    "      --prompt TEXT | --prompt-file F | --prompt-ids \"1 2 3\"\n"
    "      --raw | --chat          as it is, or through the file's template (default where known)\n"
    "      --system TEXT           system message of the chat\n"
    "      --special               control tokens in raw text become their ids\n"
    "      --resume-ids \"4 5\"      go on behind these tokens of the answer\n"
    "      --max-tokens N          (256)\n"
    "      --temperature T         (0: the most likely token)\n"
    "      --top-p P  --top-k K  --min-p P  --typical-p P  --seed N\n"
    "      --logit-bias ID:BIAS  --stop-token ID  --logprobs N\n"
    "      --repetition-penalty R  --presence-penalty P  --frequency-penalty F\n"
    "      --stop TEXT             end before this text; may be repeated\n"
    "      --ignore-end            go on past end-of-generation tokens\n"
    "      --json                  prompt_ids, ids, text, finish, logits_sha256, usage\n"
    "   none of these changes a bit of the answer:\n"
    "      --threads N  --isa auto|scalar|avx2|avx512  --chunk N\n"
    "      --beside N              run N other jobs in the batch at the same time\n"
    "   these two do:\n"
    "      --kv f16|q8_0           type of the KV cache\n"
    "      --context N             most tokens of prompt and answer\n"
    "  estimate FILE               what it will hold: weights, KV pool, the rest\n"
    "      --context N  --slots N  --sequences N  --kv f16|q8_0  --json\n"
    "  bench FILE                  tokens a second: a prompt, an answer, answers of many jobs\n"
    "      --prompt N (512)  --generate N (64)  --streams 1,8,32,64  --depth N\n"
    "      --runs N (3)  --threads N  --isa I  --kv T  --json\n"
    "  perplexity FILE TEXT        of a text file (- is standard input)\n"
    "      --context N (512)  --threads N  --isa I  --kv T  --json\n"
    "  --version, --help\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong command line.\n";

static int tool_digest(int argc, char **argv)
{
    uint8_t digest[SHA256_BYTES];
    char text[SHA256_HEX_BYTES];
    struct errbuf eb = {{0}};

    if (argc != 2 || argv[1][0] == '-')
        return tool_usage("digest: one FILE is needed");
    if (model_file_digest(argv[1], digest, &eb) != ERR_OK)
        return tool_fail_file(argv[1], &eb);
    hex_encode(digest, sizeof digest, text);
    printf("%s  %s\n", text, argv[1]);
    return tool_finish_output();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {
        {"info", tool_info},         {"digest", tool_digest},
        {"tokenize", tool_tokenize}, {"detokenize", tool_detokenize},
        {"generate", tool_generate}, {"estimate", tool_estimate},
        {"bench", tool_bench},       {"perplexity", tool_perplexity},
    };

    if (argc < 2)
        return tool_usage("a command is needed");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(help, stdout);
        return tool_finish_output();
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("cloister-engine %s (%s)\n", cloister_version, cloister_revision);
        return tool_finish_output();
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return tool_usage("'%s' is no command", argv[1]);
}
