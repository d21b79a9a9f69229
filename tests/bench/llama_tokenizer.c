/*
 * llama_tokenizer MODEL TEXT: the processor seconds that llama.cpp takes to tokenize a file of
 * text, the better of two runs. Started by bench_tokenizer --against; built by tests/bench/run
 * against llama.cpp's own headers and library, which the project itself does not use.
 */
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void say_nothing(enum ggml_log_level level, const char *text, void *context)
{
    (void)level;
    (void)text;
    (void)context;
}

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    enum { SIZE_MAX_BYTES = 1 << 24 };
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    char *text = malloc(SIZE_MAX_BYTES);
    llama_token *ids = malloc((SIZE_MAX_BYTES + 16) * sizeof *ids);
    if (file == NULL || text == NULL || ids == NULL) {
        (void)fprintf(stderr, "llama_tokenizer: MODEL and TEXT are needed\n");
        return 1;
    }
    size_t size = fread(text, 1, SIZE_MAX_BYTES, file);
    (void)fclose(file);

    llama_log_set(say_nothing, NULL);
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    struct llama_model *model = llama_model_load_from_file(argv[1], params);
    if (model == NULL) {
        (void)fprintf(stderr, "llama_tokenizer: llama.cpp refuses %s\n", argv[1]);
        return 1;
    }
    double best_s = 1e9;
    int32_t n = 0;
    for (int run = 0; run < 2; run++) {
        double start_s = now_s();
        n = llama_tokenize(llama_model_get_vocab(model), text, (int32_t)size, ids, SIZE_MAX_BYTES,
                           false, false);
        double s = now_s() - start_s;
        best_s = s < best_s ? s : best_s;
    }
    printf("%.6f %d\n", best_s, n);
    llama_model_free(model);
    free(text);
    free(ids);
    return n < 0;
}
