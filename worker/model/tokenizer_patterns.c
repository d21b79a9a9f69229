/*
 * tokenizer_patterns.c - the splits that tokenizer.ggml.pre asks for by name.
 *
 * A split is one to six patterns; each sees the pieces that the one before it left, every piece as
 * if it were the whole text. They are those of the models' own tokenizers as llama.cpp reads them,
 * since files are made for its reading: in tekken and gpt-4o only A-Z and a-z have a case, every
 * other letter counts as both, and a combining mark is no letter.
 *
 * White space is written out: PCRE2's \s has U+180E, which no tokenizer counts. Repeats are
 * possessive wherever nothing behind them could want a character back, so that the patterns are
 * linear; what still gives back does so once a run.
 */
#include "worker/model/tokenizer_internal.h"

#include <stdio.h>
#include <string.h>

/* White space inside a class: TAB to CR, NEL, and Unicode's separators. */
#define WS "\\t-\\r\\x{85}\\p{Z}"

/* White space runs leave their last character to the word that follows. */
#define SPACES "[" WS "]+(?![^" WS "])|[" WS "]+"

/* A run of white space as far as its last line end, before the rest of it. */
#define LINES "[" WS "]*[\\r\\n]++|" SPACES

#define CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"

/* Source: GPT-2. */
#define PATTERN_GPT2 "'(?:[stmd]|re|ve|ll)| ?\\p{L}++| ?\\p{N}++| ?[^" WS "\\p{L}\\p{N}]++|" SPACES

/* Source: Llama 3 and Qwen 2, which differ in how many digits stay together. */
#define PATTERN_WORDS(digits)                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}++|" digits "| ?[^" WS "\\p{L}\\p{N}]++[\\r\\n]*+|" LINES
#define PATTERN_LLAMA3(digits) CONTRACTION "|" PATTERN_WORDS(digits)

/* Source: Qwen 3.5, where combining marks belong to words. */
#define PATTERN_QWEN35                                                                             \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]++|\\p{N}| ?[^" WS                           \
                "\\p{L}\\p{M}\\p{N}]++[\\r\\n]*+|" LINES

/* Source: Seed-Coder. */
#define PATTERN_SEED                                                                               \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}++|\\p{N}| ?[^" WS "\\p{L}\\p{N}]++|" LINES

/* Source: Mistral's tekken and OpenAI's o200k: a capital within a word begins another. */
#define UPPER "[^\\P{L}a-z]"
#define LOWER "[^\\P{L}A-Z]"
#define PATTERN_CASED(contraction, digits)                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?+(?:" UPPER "*" LOWER "++|" UPPER "++)" contraction "|" digits          \
    "| ?[^" WS "\\p{L}\\p{N}]++[\\r\\n/]*+|" LINES

/* Source: DeepSeek. The ideographs of DeepSeek LLM are nearly all of U+0800 to U+9FA5, but for the
 * white space in it. */
#define DEEPSEEK_CJK                                                                               \
    "[\\x{800}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}"                 \
    "\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]++"
#define DEEPSEEK_LETTERS                                                                           \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                 \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"         \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"                  \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"                       \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                 \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"                 \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}"        \
    "\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}"         \
    "\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}"                 \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"                  \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}"                   \
    "\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}"        \
    "\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"         \
    "\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"                  \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}"                 \
    "\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"               \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"         \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define DEEPSEEK_SIGNS                                                                             \
    "!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3001}\\x{3002}"
#define PATTERN_DEEPSEEK3                                                                          \
    "[!-/:-@\\[-`{-~][A-Za-z]++|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]++|"                     \
    " ?[\\p{P}\\p{S}]++[\\r\\n]*+|" LINES

/* Source: BLOOM. */
#define PATTERN_BLOOM                                                                              \
    " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]++"

static const struct pre_split splits[] = {
    {"llama3", {PATTERN_LLAMA3("\\p{N}{1,3}+")}},
    {"smollm", {"\\p{N}", PATTERN_GPT2}},
    {"qwen2", {PATTERN_LLAMA3("\\p{N}")}},
    {"gpt-2", {PATTERN_GPT2}},
    {"default", {"[\\p{P}$+<=>^~|]++", PATTERN_GPT2, "\\p{N}++", "[0-9][0-9][0-9]"}},
    {"tekken", {PATTERN_CASED("", "\\p{N}")}},
    {"gpt-4o", {PATTERN_CASED("(?:" CONTRACTION ")?+", "\\p{N}{1,3}+")}},
    {"deepseek-llm",
     {"[\\r\\n]", "[" WS "]?+[" DEEPSEEK_LETTERS "]++", "[" WS "]?+[" DEEPSEEK_SIGNS "]++",
      /* At the end of a piece; without the look behind, a run in its middle is quadratic. */
      "(?<![" WS "])[" WS "]++\\z", DEEPSEEK_CJK, "\\p{N}++"}},
    {"deepseek-coder",
     {"[\\r\\n]", "[" WS "]?+\\p{L}++", "[" WS "]?+\\p{P}++", DEEPSEEK_CJK, "\\p{N}"}},
    {"deepseek-v3",
     {"\\p{N}{1,3}+", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]++", PATTERN_DEEPSEEK3}},
    {"falcon", {"[\\p{P}$+<=>^~|`]++", PATTERN_GPT2, "[0-9][0-9][0-9]"}},
    {"qwen35", {PATTERN_QWEN35}},
    {"seed-coder", {PATTERN_SEED}},
    {"ufakzeka", {PATTERN_WORDS("\\p{N}")}},
    {"minicpm5", {"\\p{N}{1,3}+", PATTERN_LLAMA3("\\p{N}++")}},
    {"bloom", {PATTERN_BLOOM}},
    {"viking", {PATTERN_BLOOM, "\\p{N}"}},
};

/* What a file can call them. Where several names have one split, the first is the usual one. */
static const struct pre_type pre_types[] = {
    {"llama-bpe", "llama3", true, true},
    {"llama3", "llama3", true, true},
    {"llama-v3", "llama3", true, true},
    {"falcon3", "llama3", true, true},
    {"falcon-h1", "llama3", true, true},
    {"lfm2", "llama3", true, true},
    {"midm-2.0", "llama3", true, true},
    {"pixtral", "llama3", true, true},
    {"glm4", "llama3", true, false},
    {"glm5", "llama3", true, false},
    {"chatglm-bpe", "llama3", false, false},
    {"dbrx", "llama3", false, false},
    {"smaug-bpe", "llama3", false, false},
    {"smollm", "smollm", false, false},
    {"codeshell", "smollm", false, false},
    {"command-r", "smollm", false, false},
    {"exaone", "smollm", false, false},
    {"mellum2", "smollm", false, false},
    {"minerva-7b", "smollm", false, false},
    {"refact", "smollm", false, false},
    {"starcoder", "smollm", false, false},
    {"qwen2", "qwen2", false, false},
    {"bailingmoe", "qwen2", false, false},
    {"bailingmoe2", "qwen2", false, false},
    {"deepseek-r1-qwen", "qwen2", false, false},
    {"f2llmv2", "qwen2", false, false},
    {"grok-2", "qwen2", false, false},
    {"hunyuan", "qwen2", false, false},
    {"kormo", "qwen2", false, false},
    {"llada-moe", "qwen2", false, false},
    {"megrez", "qwen2", false, false},
    {"solar-open", "qwen2", false, false},
    {"stablelm2", "qwen2", false, false},
    {"gpt-2", "gpt-2", false, false},
    {"a.x-4.0", "gpt-2", false, false},
    {"exaone4", "gpt-2", false, false},
    {"gigachat", "gpt-2", false, false},
    {"granite-docling", "gpt-2", false, false},
    {"jais", "gpt-2", false, false},
    {"mellum", "gpt-2", false, false},
    {"modern-bert", "gpt-2", false, false},
    {"mpt", "gpt-2", false, false},
    {"olmo", "gpt-2", false, false},
    {"phi-2", "gpt-2", false, false},
    {"trillion", "gpt-2", false, false},
    {"default", "default", false, false},
    {"tekken", "tekken", true, true},
    {"gpt-4o", "gpt-4o", false, false},
    {"kanana2", "gpt-4o", false, false},
    {"llama4", "gpt-4o", false, false},
    {"minimax-m2", "gpt-4o", false, false},
    {"talkie", "gpt-4o", false, false},
    {"deepseek-llm", "deepseek-llm", false, false},
    {"deepseek-coder", "deepseek-coder", false, false},
    {"deepseek-v3", "deepseek-v3", false, false},
    {"hunyuan-dense", "deepseek-v3", false, false},
    {"hy_v4", "deepseek-v3", false, false},
    {"joyai-llm", "deepseek-v3", false, false},
    {"falcon", "falcon", false, false},
    {"qwen35", "qwen35", false, false},
    {"seed-coder", "seed-coder", false, false},
    {"ufakzeka", "ufakzeka", false, false},
    {"minicpm5", "minicpm5", true, false},
    {"bloom", "bloom", false, false},
    {"gpt3-finnish", "bloom", false, false},
    {"poro-chat", "bloom", false, false},
    {"viking", "viking", false, false},
};

const struct pre_type *pre_type_find(struct gguf_string name)
{
    for (size_t i = 0; i < sizeof pre_types / sizeof pre_types[0]; i++) {
        if (gguf_string_equal(name, pre_types[i].name))
            return &pre_types[i];
    }
    return NULL;
}

const struct pre_split *pre_split_of(const struct pre_type *type)
{
    size_t i = 0;
    while (strcmp(splits[i].kind, type->kind) != 0)
        i++;
    return &splits[i];
}

void pre_type_list(char *ret_text, size_t size)
{
    size_t used = 0;
    ret_text[0] = 0;
    for (size_t i = 0; i < sizeof pre_types / sizeof pre_types[0] && used < size; i++) {
        if (i > 0 && strcmp(pre_types[i].kind, pre_types[i - 1].kind) == 0)
            continue;
        used += (size_t)snprintf(ret_text + used, size - used, "%s%s", i > 0 ? ", " : "",
                                 pre_types[i].name);
    }
}
