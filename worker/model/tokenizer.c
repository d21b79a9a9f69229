#include "worker/model/tokenizer_internal.h"

#include "common/crypto.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_TYPES  "tokenizer.ggml.token_type"
#define KEY_SCORES "tokenizer.ggml.scores"
#define KEY_MERGES "tokenizer.ggml.merges"

#define BLOB_MAX (1u << 30) /* text of all tokens; what they decode to doubles it at most */

/* Tokens that end an answer, known by their text because files seldom say so. A file that calls
 * one of them a normal token is wrong about it: as normal text a user could write it. */
static const char *const end_texts[] = {
    "<|eot_id|>",    "<|im_end|>",
    "<|end|>",       "<|return|>",
    "<|call|>",      "<|flush|>",
    "<|calls|>",     "<end_of_turn>",
    "<|endoftext|>", "</s>",
    "<|eom_id|>",    "<EOT>",
    "_<EOT>",        "[EOT]",
    "[EOS]",         "<|end_of_text|>",
    "<eos>",         "<end_of_utterance>",
    "<turn|>",       "<|tool_response>",
    "[e~[",          "<\uff5cend\u2581of\u2581sentence\uff5c>",
};

/* Fill-in-the-middle marks. Those for padding, repository and file separator end an answer, too:
 * what follows them is another document. */
struct fim_text {
    const char *text;
    bool is_end;
};
static const struct fim_text fim_texts[] = {
    {"<|fim_prefix|>", false},
    {"<fim-prefix>", false},
    {"<fim_prefix>", false},
    {"<PRE>", false},
    {"\u2581<PRE>", false},
    {"<|code_prefix|>", false},
    {"<|prefix|>", false},
    {"<|fim_suffix|>", false},
    {"<fim-suffix>", false},
    {"<fim_suffix>", false},
    {"<SUF>", false},
    {"\u2581<SUF>", false},
    {"<|code_suffix|>", false},
    {"<|suffix|>", false},
    {"<|fim_middle|>", false},
    {"<fim-middle>", false},
    {"<fim_middle>", false},
    {"<MID>", false},
    {"\u2581<MID>", false},
    {"<|code_middle|>", false},
    {"<|middle|>", false},
    {"<|fim_pad|>", true},
    {"<fim-pad>", true},
    {"<fim_pad>", true},
    {"<PAD>", true},
    {"[PAD]", true},
    {"<|fim_repo|>", true},
    {"<|repo_name|>", true},
    {"<fim-repo>", true},
    {"<REPO>", true},
    {"<reponame>", true},
    {"<|file_sep|>", true},
};

/* --- reading --- */

static enum err read_kind(struct tokenizer *t, const struct gguf *g, struct errbuf *eb)
{
    struct gguf_string s;
    char text[40];
    enum err e = gguf_get_string(g, "tokenizer.ggml.model", &s, eb);
    if (e != ERR_OK)
        return e;
    if (gguf_string_equal(s, "llama")) {
        t->family = TOKENIZER_FAMILY_SPM;
        t->adds_bos = true;
        t->adds_space_prefix = true;
        (void)snprintf(t->kind, sizeof t->kind, "spm");
        return ERR_OK;
    }
    if (!gguf_string_equal(s, "gpt2")) {
        gguf_string_print(s, text, sizeof text);
        return err_set(eb, ERR_UNSUPPORTED,
                       "key 'tokenizer.ggml.model': '%s' is not one of gpt2, llama", text);
    }
    t->family = TOKENIZER_FAMILY_BPE;
    e = gguf_get_string(g, "tokenizer.ggml.pre", &s, eb);
    if (e != ERR_OK)
        return e;
    const struct pre_type *pre = pre_type_find(s);
    if (pre == NULL) {
        char known[300];
        gguf_string_print(s, text, sizeof text);
        pre_type_list(known, sizeof known);
        return err_set(eb, ERR_UNSUPPORTED,
                       "key 'tokenizer.ggml.pre': '%s' is not one of %s, or their other names",
                       text, known);
    }
    t->split = pre_split_of(pre);
    t->ignore_merges = pre->ignore_merges;
    t->adds_bos = pre->adds_bos;
    (void)snprintf(t->kind, sizeof t->kind, "bpe %s", pre->kind);
    return pre_tokenizer_new(&t->splitter, t->split, eb);
}

static enum err read_count_check(const char *key, uint64_t count, int32_t n_tokens,
                                 struct errbuf *eb)
{
    if (count == (uint64_t)n_tokens)
        return ERR_OK;
    return err_set(eb, ERR_INVALID,
                   "key '%s' has %" PRIu64 " elements, but '" KEY_TOKENS "' has %" PRId32, key,
                   count, n_tokens);
}

/* Texts, types and scores. The blob has room for what the tokens decode to as well. */
static enum err read_tokens(struct tokenizer *t, const struct gguf *g, struct errbuf *eb)
{
    uint64_t count;
    uint64_t total = 0;
    enum err e = gguf_get_array(g, KEY_TOKENS, GGUF_VALUE_STRING, &count, eb);
    if (e != ERR_OK)
        return e;
    if (count == 0 || count > TOKENIZER_VOCAB_MAX)
        return err_set(eb, ERR_INVALID,
                       "key '" KEY_TOKENS "' has %" PRIu64 " tokens; 1 to %d are "
                       "allowed",
                       count, TOKENIZER_VOCAB_MAX);
    t->n_tokens = (int32_t)count;
    for (uint64_t id = 0; id < count; id++) {
        size_t size = gguf_array_string(g, KEY_TOKENS, id).size;
        if (size > TOKENIZER_TOKEN_MAX)
            return err_set(eb, ERR_TOO_LARGE,
                           "key '" KEY_TOKENS "': token %" PRIu64
                           " has %zu bytes, over the bound of %u",
                           id, size, TOKENIZER_TOKEN_MAX);
        if (size > t->text_size_max)
            t->text_size_max = (uint32_t)size;
        total += size;
    }
    if (total > BLOB_MAX)
        return err_set(eb, ERR_TOO_LARGE, "key '" KEY_TOKENS "': %" PRIu64 " bytes of text in all",
                       total);
    t->tokens = calloc((size_t)count, sizeof *t->tokens);
    t->whole = calloc((size_t)count, sizeof *t->whole);
    t->blob = malloc((size_t)total * 2 + 1);
    if (t->tokens == NULL || t->whole == NULL || t->blob == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %" PRIu64 " tokens", count);
    for (uint64_t id = 0; id < count; id++) {
        struct gguf_string s = gguf_array_string(g, KEY_TOKENS, id);
        memcpy(t->blob + t->blob_size, s.bytes, s.size);
        t->tokens[id].text = t->blob_size;
        t->tokens[id].text_size = (uint32_t)s.size;
        t->blob_size += (uint32_t)s.size;
    }

    uint64_t n_types;
    e = gguf_get_array(g, KEY_TYPES, GGUF_VALUE_I32, &n_types, eb);
    if (e == ERR_OK)
        e = read_count_check(KEY_TYPES, n_types, t->n_tokens, eb);
    if (e != ERR_OK)
        return e;
    for (uint64_t id = 0; id < count; id++) {
        int64_t type = gguf_array_int(g, KEY_TYPES, id);
        if (type < TOKEN_TYPE_NORMAL || type > TOKEN_TYPE_BYTE)
            return err_set(eb, ERR_INVALID,
                           "key '" KEY_TYPES "': element %" PRIu64 " is %" PRId64
                           ", not one of 1 to 6",
                           id, type);
        t->tokens[id].type = (uint8_t)type;
    }
    if (t->family == TOKENIZER_FAMILY_BPE)
        return ERR_OK;

    uint64_t n_scores;
    e = gguf_get_array(g, KEY_SCORES, GGUF_VALUE_F32, &n_scores, eb);
    if (e == ERR_OK)
        e = read_count_check(KEY_SCORES, n_scores, t->n_tokens, eb);
    if (e != ERR_OK)
        return e;
    for (uint64_t id = 0; id < count; id++) {
        t->tokens[id].score = (float)gguf_array_float(g, KEY_SCORES, id);
        if (!isfinite(t->tokens[id].score))
            return err_set(eb, ERR_INVALID, "key '" KEY_SCORES "': element %" PRIu64 " is %g", id,
                           (double)t->tokens[id].score);
    }
    return ERR_OK;
}

/* Without the key `*ret` stays as it is. */
static enum err read_id(const struct tokenizer *t, const struct gguf *g, const char *key,
                        int32_t *ret, struct errbuf *eb)
{
    uint32_t id;
    enum err e = gguf_get_u32(g, key, &id, eb);
    if (e == ERR_NOT_FOUND)
        return ERR_OK;
    if (e != ERR_OK)
        return e;
    if (id >= (uint32_t)t->n_tokens)
        return err_set(eb, ERR_INVALID, "key '%s' is %" PRIu32 ", but there are %" PRId32 " tokens",
                       key, id, t->n_tokens);
    *ret = (int32_t)id;
    return ERR_OK;
}

/* SentencePiece's own ids for its control tokens, where the file does not name any. */
static void default_id(const struct tokenizer *t, int32_t id, enum token_type type, int32_t *ret)
{
    if (t->family == TOKENIZER_FAMILY_SPM && id < t->n_tokens && t->tokens[id].type == type)
        *ret = id;
}

static void mark_end(struct tokenizer *t, int32_t id)
{
    if (id >= 0)
        t->tokens[id].is_end = true;
}

static enum err read_special_ids(struct tokenizer *t, const struct gguf *g, struct errbuf *eb)
{
    struct {
        const char *key;
        int32_t id;
    } more_ends[] = {
        {"tokenizer.ggml.eom_token_id", -1},
        {"tokenizer.ggml.fim_pad_token_id", -1},
        {"tokenizer.ggml.fim_rep_token_id", -1},
        {"tokenizer.ggml.fim_sep_token_id", -1},
    };
    t->bos = t->eos = t->eot = t->unknown = -1;
    default_id(t, 1, TOKEN_TYPE_CONTROL, &t->bos);
    default_id(t, 2, TOKEN_TYPE_CONTROL, &t->eos);
    default_id(t, 0, TOKEN_TYPE_UNKNOWN, &t->unknown);
    enum err e = read_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, eb);
    if (e == ERR_OK)
        e = read_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, eb);
    if (e == ERR_OK)
        e = read_id(t, g, "tokenizer.ggml.eot_token_id", &t->eot, eb);
    if (e == ERR_OK)
        e = read_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unknown, eb);
    for (size_t i = 0; i < sizeof more_ends / sizeof more_ends[0] && e == ERR_OK; i++) {
        e = read_id(t, g, more_ends[i].key, &more_ends[i].id, eb);
        mark_end(t, more_ends[i].id);
    }
    if (e == ERR_OK && gguf_has(g, "tokenizer.ggml.add_bos_token"))
        e = gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, eb);
    if (e == ERR_OK && gguf_has(g, "tokenizer.ggml.add_space_prefix")) {
        bool prefix;
        e = gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &prefix, eb);
        if (e == ERR_OK && t->family == TOKENIZER_FAMILY_SPM)
            t->adds_space_prefix = prefix;
    }
    if (e == ERR_OK && t->adds_bos && t->bos < 0)
        return err_set(eb, ERR_INVALID,
                       "key 'tokenizer.ggml.bos_token_id' is missing, but prompts are to begin "
                       "with that token");
    return e;
}

static void mark_control_texts(struct tokenizer *t)
{
    for (size_t i = 0; i < sizeof end_texts / sizeof end_texts[0]; i++) {
        int32_t id = text_map_find(t, end_texts[i], strlen(end_texts[i]));
        if (id < 0)
            continue;
        t->tokens[id].type = TOKEN_TYPE_CONTROL;
        t->tokens[id].is_end = true;
    }
    for (size_t i = 0; i < sizeof fim_texts / sizeof fim_texts[0]; i++) {
        int32_t id = text_map_find(t, fim_texts[i].text, strlen(fim_texts[i].text));
        if (id < 0)
            continue;
        t->tokens[id].type = TOKEN_TYPE_CONTROL;
        t->tokens[id].is_end = t->tokens[id].is_end || fim_texts[i].is_end;
    }
    mark_end(t, t->eos);
    mark_end(t, t->eot);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        uint8_t type = t->tokens[id].type;
        t->tokens[id].mergeable =
            type == TOKEN_TYPE_NORMAL || type == TOKEN_TYPE_USER || type == TOKEN_TYPE_UNUSED;
    }
}

/* --- what tokens decode to --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int byte_token_value(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = hex_digit(text[3]);
    int low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Text in the byte alphabet; what is not in it stands for itself. */
static void piece_from_alphabet(struct tokenizer *t, struct token *token)
{
    const char *text = t->blob + token->text;
    uint32_t used = 0;
    for (size_t at = 0; at < token->text_size;) {
        size_t size;
        int byte = byte_alphabet_decode(text + at, token->text_size - at, &size);
        if (byte < 0) {
            token->piece = token->text;
            token->piece_size = token->text_size;
            return;
        }
        t->blob[token->piece + used++] = (char)byte;
        at += size;
    }
    token->piece_size = used;
    t->blob_size += used;
}

static void piece_with_spaces(struct tokenizer *t, struct token *token)
{
    const char *text = t->blob + token->text;
    uint32_t used = 0;
    for (size_t at = 0; at < token->text_size;) {
        if (token->text_size - at >= 3 && memcmp(text + at, "\u2581", 3) == 0) {
            t->blob[token->piece + used++] = ' ';
            at += 3;
        } else {
            t->blob[token->piece + used++] = text[at++];
        }
    }
    token->piece_size = used;
    t->blob_size += used;
}

static enum err make_pieces(struct tokenizer *t, struct errbuf *eb)
{
    for (int32_t id = 0; id < t->n_tokens; id++) {
        struct token *token = &t->tokens[id];
        const char *text = t->blob + token->text;
        token->piece = t->blob_size;
        switch ((enum token_type)token->type) {
        case TOKEN_TYPE_NORMAL:
            if (t->family == TOKENIZER_FAMILY_BPE)
                piece_from_alphabet(t, token);
            else
                piece_with_spaces(t, token);
            break;
        case TOKEN_TYPE_BYTE: {
            int byte = byte_token_value(text, token->text_size);
            if (byte < 0)
                return err_set(eb, ERR_INVALID,
                               "key '" KEY_TYPES "': element %" PRId32
                               " says byte, but the token's text is not <0xNN>",
                               id);
            t->blob[t->blob_size++] = (char)byte;
            token->piece_size = 1;
            break;
        }
        case TOKEN_TYPE_UNUSED:
            break;
        case TOKEN_TYPE_UNKNOWN:
        case TOKEN_TYPE_CONTROL:
        case TOKEN_TYPE_USER:
            token->piece = token->text;
            token->piece_size = token->text_size;
            break;
        }
    }
    return ERR_OK;
}

static void find_byte_ids(struct tokenizer *t)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        int32_t id;
        if (t->family == TOKENIZER_FAMILY_BPE) {
            t->alphabet_size[byte] =
                (uint8_t)byte_alphabet_encode((uint8_t)byte, t->alphabet[byte]);
            id = text_map_find(t, t->alphabet[byte], t->alphabet_size[byte]);
            if (id >= 0 && !t->tokens[id].mergeable)
                id = -1;
        } else {
            (void)snprintf(text, sizeof text, "<0x%02X>", byte);
            id = text_map_find(t, text, 6);
            if (id < 0 || t->tokens[id].type != TOKEN_TYPE_BYTE) {
                text[0] = (char)byte;
                id = text_map_find(t, text, 1);
            }
            if (id >= 0 && !t->tokens[id].mergeable && t->tokens[id].type != TOKEN_TYPE_BYTE)
                id = -1;
        }
        t->byte_ids[byte] = id;
    }
}

/* --- merges --- */

static enum err read_merges(struct tokenizer *t, const struct gguf *g, struct errbuf *eb)
{
    uint64_t count;
    enum err e = gguf_get_array(g, KEY_MERGES, GGUF_VALUE_STRING, &count, eb);
    if (e != ERR_OK)
        return e;
    if (count > TOKENIZER_VOCAB_MAX)
        return err_set(eb, ERR_TOO_LARGE,
                       "key '" KEY_MERGES "': %" PRIu64 " merges are over the bound of %d", count,
                       TOKENIZER_VOCAB_MAX);
    t->merges = calloc(count > 0 ? (size_t)count : 1, sizeof *t->merges);
    if (t->merges == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %" PRIu64 " merges", count);
    for (uint64_t i = 0; i < count; i++) {
        struct gguf_string s = gguf_array_string(g, KEY_MERGES, i);
        const char *space = s.size > 1 ? memchr(s.bytes + 1, ' ', s.size - 1) : NULL;
        char joined[2 * TOKENIZER_TOKEN_MAX];
        struct merge m = {-1, -1, -1};
        if (space != NULL && s.size <= sizeof joined) {
            size_t left = (size_t)(space - s.bytes);
            size_t right = s.size - left - 1;
            memcpy(joined, s.bytes, left);
            memcpy(joined + left, space + 1, right);
            m.left = text_map_find(t, joined, left);
            m.right = text_map_find(t, joined + left, right);
            m.merged = text_map_find(t, joined, left + right);
        }
        if (m.left < 0 || m.right < 0 || m.merged < 0) {
            char text[80];
            gguf_string_print(s, text, sizeof text);
            return err_set(eb, ERR_INVALID, "key '" KEY_MERGES "': element %" PRIu64 ", '%s', %s",
                           i, text,
                           space == NULL ? "is not two texts and a space"
                           : m.left < 0  ? "begins with what is not a token"
                           : m.right < 0 ? "ends with what is not a token"
                                         : "makes what is not a token");
        }
        t->merges[i] = m;
    }
    t->n_merges = (uint32_t)count;
    return pair_map_init(&t->pairs, t, eb);
}

static void make_digest(struct tokenizer *t)
{
    static const char form[] = "cloister tokenizer 1";
    struct sha256_stream *s = sha256_new();
    sha256_update(s, form, sizeof form);
    sha256_update(s, t->kind, sizeof t->kind);
    for (size_t i = 0; t->split != NULL && t->split->passes[i] != NULL; i++)
        sha256_update(s, t->split->passes[i], strlen(t->split->passes[i]) + 1);
    const uint8_t flags[] = {t->adds_bos, t->ignore_merges, t->adds_space_prefix};
    sha256_update(s, flags, sizeof flags);
    const int32_t ids[] = {t->bos, t->eos, t->eot, t->unknown, t->n_tokens};
    sha256_update(s, ids, sizeof ids);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        const struct token *token = &t->tokens[id];
        sha256_update(s, &token->text_size, sizeof token->text_size);
        sha256_update(s, t->blob + token->text, token->text_size);
        sha256_update(s, &token->score, sizeof token->score);
        const uint8_t kind[] = {token->type, token->is_end};
        sha256_update(s, kind, sizeof kind);
    }
    sha256_update(s, &t->n_merges, sizeof t->n_merges);
    sha256_update(s, t->merges, t->n_merges * sizeof *t->merges);
    sha256_finish(s, t->digest);
}

enum err tokenizer_open(struct tokenizer **ret_tokenizer, const struct gguf *g, struct errbuf *eb)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a tokenizer");
    enum err e = read_kind(t, g, eb);
    if (e == ERR_OK)
        e = read_tokens(t, g, eb);
    if (e == ERR_OK)
        e = text_map_init(&t->texts, t, eb);
    if (e == ERR_OK)
        e = read_special_ids(t, g, eb);
    if (e != ERR_OK)
        goto out;
    mark_control_texts(t);
    e = make_pieces(t, eb);
    if (e != ERR_OK)
        goto out;
    find_byte_ids(t);
    if (t->family == TOKENIZER_FAMILY_BPE)
        e = read_merges(t, g, eb);
    else if (text_map_find(t, "\u2581", 3) < 0)
        e = err_set(eb, ERR_INVALID,
                    "key '" KEY_TOKENS "': there is no token '\\xe2\\x96\\x81' (U+2581), which "
                    "stands for a space");
    else
        e = spm_joins_init(t, eb);
    if (e == ERR_OK)
        e = trie_new(&t->specials, t, eb);
    if (e == ERR_OK)
        make_digest(t);
out:
    if (e != ERR_OK) {
        tokenizer_close(t);
        return e;
    }
    *ret_tokenizer = t;
    return ERR_OK;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t == NULL)
        return;
    trie_free(t->specials);
    pre_tokenizer_free(t->splitter);
    free(t->texts.slots);
    free(t->pairs.slots);
    free(t->joins);
    free((void *)t->whole);
    free(t->merges);
    free(t->tokens);
    free(t->blob);
    free(t);
}

/* --- decoding and accessors --- */

void tokenizer_decode(const struct tokenizer *t, int32_t id, bool special, bool first,
                      struct buf *out)
{
    if (id < 0 || id >= t->n_tokens)
        return;
    const struct token *token = &t->tokens[id];
    if (!special && (token->type == TOKEN_TYPE_CONTROL || token->type == TOKEN_TYPE_UNKNOWN))
        return;
    const char *piece = t->blob + token->piece;
    size_t size = token->piece_size;
    if (first && t->adds_space_prefix && size > 0 && piece[0] == ' ') {
        piece++;
        size--;
    }
    buf_append(out, piece, size);
}

int32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->n_tokens;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->adds_bos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_tokens && t->tokens[id].is_end;
}

int32_t tokenizer_find_special(const struct tokenizer *t, const char *text)
{
    int32_t id = text_map_find(t, text, strlen(text));
    if (id < 0)
        return -1;
    uint8_t type = t->tokens[id].type;
    return type == TOKEN_TYPE_CONTROL || type == TOKEN_TYPE_USER ? id : -1;
}

void tokenizer_digest(const struct tokenizer *t, uint8_t ret_digest[32])
{
    memcpy(ret_digest, t->digest, sizeof t->digest);
}

const char *tokenizer_kind(const struct tokenizer *t)
{
    return t->kind;
}
