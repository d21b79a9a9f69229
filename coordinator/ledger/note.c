#include "coordinator/ledger/note.h"

#include "common/buf.h"
#include "common/check.h"
#include "coordinator/ledger/base64.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Em dash and space: how a signature line begins. */
#define SIGNATURE_START   "\xe2\x80\x94 "
#define ALGORITHM_ED25519 0x01
#define SIGNATURE_BYTES   (NOTE_KEY_ID_BYTES + ED25519_SIGN_BYTES)

bool note_origin_valid(const char *origin)
{
    size_t size = strnlen(origin, NOTE_ORIGIN_BYTES);
    if (size == 0 || size >= NOTE_ORIGIN_BYTES)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (origin[i] <= ' ' || origin[i] > '~' || origin[i] == '+')
            return false;
    }
    return true;
}

void note_key_id(const char *name, const uint8_t public_key[ED25519_PUBLIC_BYTES],
                 uint8_t ret_id[NOTE_KEY_ID_BYTES])
{
    static const uint8_t middle[2] = {'\n', ALGORITHM_ED25519};
    uint8_t digest[SHA256_BYTES];
    struct sha256_stream *s = sha256_new();
    sha256_update(s, name, strlen(name));
    sha256_update(s, middle, sizeof middle);
    sha256_update(s, public_key, ED25519_PUBLIC_BYTES);
    sha256_finish(s, digest);
    memcpy(ret_id, digest, NOTE_KEY_ID_BYTES);
}

enum err note_sign(const struct note *note, const struct crypto_key *key,
                   char ret_text[NOTE_TEXT_BYTES], struct errbuf *eb)
{
    char body[NOTE_TEXT_BYTES], root[BASE64_TEXT_BYTES(SHA256_BYTES)];
    char signature_text[BASE64_TEXT_BYTES(SIGNATURE_BYTES)];
    uint8_t public_key[ED25519_PUBLIC_BYTES], signature[SIGNATURE_BYTES];

    if (!note_origin_valid(note->origin))
        return err_set(eb, ERR_INVALID, "checkpoint: \"%s\" cannot be an origin", note->origin);
    base64_encode(note->root, sizeof note->root, root);
    int body_size =
        snprintf(body, sizeof body, "%s\n%" PRIu64 "\n%s\n", note->origin, note->size, root);
    CHECK(body_size > 0 && (size_t)body_size < sizeof body);
    crypto_key_public(key, public_key);
    note_key_id(note->origin, public_key, signature);
    enum err e = crypto_sign(key, body, (size_t)body_size, signature + NOTE_KEY_ID_BYTES, eb);
    if (e != ERR_OK)
        return e;
    base64_encode(signature, sizeof signature, signature_text);
    int size = snprintf(ret_text, NOTE_TEXT_BYTES, "%s\n" SIGNATURE_START "%s %s\n", body,
                        note->origin, signature_text);
    CHECK(size > 0 && size < NOTE_TEXT_BYTES);
    return ERR_OK;
}

/* ---- reading ---- */

struct line {
    const char *text;
    size_t size; /* without its newline */
};

/* Takes the next line off `*text`; false where none ends with a newline. */
static bool line_next(const char **text, struct line *ret_line)
{
    const char *end = strchr(*text, '\n');
    if (end == NULL)
        return false;
    *ret_line = (struct line){*text, (size_t)(end - *text)};
    *text = end + 1;
    return true;
}

/* Decimal without sign or leading zeros. */
static bool parse_size(struct line line, uint64_t *ret_size)
{
    uint64_t value = 0;
    if (line.size == 0 || (line.size > 1 && line.text[0] == '0'))
        return false;
    for (size_t i = 0; i < line.size; i++) {
        char c = line.text[i];
        if (c < '0' || c > '9' || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(c - '0'), &value))
            return false;
    }
    *ret_size = value;
    return true;
}

static bool parse_base64(struct line line, uint8_t *ret_bytes, size_t size)
{
    struct buf bytes;
    buf_init(&bytes);
    bool ok = base64_decode(line.text, line.size, &bytes) && bytes.size == size;
    if (ok)
        memcpy(ret_bytes, bytes.data, size);
    buf_fini(&bytes);
    return ok;
}

/* Sets `*ret_signatures` to the first signature line. */
static enum err parse_body(const char *text, struct note *ret_note, const char **ret_signatures,
                           struct errbuf *eb)
{
    struct note note = {0};
    struct line line;

    if (strnlen(text, NOTE_TEXT_BYTES_MAX) >= NOTE_TEXT_BYTES_MAX)
        return err_set(eb, ERR_CORRUPT, "checkpoint: longer than %d bytes", NOTE_TEXT_BYTES_MAX);
    if (!line_next(&text, &line) || line.size >= sizeof note.origin)
        return err_set(eb, ERR_CORRUPT, "checkpoint: no origin line");
    memcpy(note.origin, line.text, line.size);
    if (!note_origin_valid(note.origin))
        return err_set(eb, ERR_CORRUPT, "checkpoint: malformed origin");
    if (!line_next(&text, &line) || !parse_size(line, &note.size))
        return err_set(eb, ERR_CORRUPT, "checkpoint: its second line is not a number of records");
    if (!line_next(&text, &line) || !parse_base64(line, note.root, sizeof note.root))
        return err_set(eb, ERR_CORRUPT, "checkpoint: its third line is not a root hash");
    if (!line_next(&text, &line) || line.size != 0)
        return err_set(eb, ERR_CORRUPT, "checkpoint: no blank line behind the root");
    *ret_note = note;
    *ret_signatures = text;
    return ERR_OK;
}

struct signature_line {
    struct line name;
    struct line signature;
};

static bool parse_signature(struct line line, struct signature_line *ret_line)
{
    size_t start = strlen(SIGNATURE_START);
    if (line.size < start || memcmp(line.text, SIGNATURE_START, start) != 0)
        return false;
    const char *name = line.text + start, *end = line.text + line.size;
    const char *space = memchr(name, ' ', (size_t)(end - name));
    if (space == NULL || space == name || memchr(space + 1, ' ', (size_t)(end - space - 1)) != NULL)
        return false;
    ret_line->name = (struct line){name, (size_t)(space - name)};
    ret_line->signature = (struct line){space + 1, (size_t)(end - space - 1)};
    return true;
}

enum err note_parse(const char *text, struct note *ret_note, struct errbuf *eb)
{
    const char *signatures;
    return parse_body(text, ret_note, &signatures, eb);
}

enum err note_open(const char *text, const uint8_t public_key[ED25519_PUBLIC_BYTES],
                   struct note *ret_note, struct errbuf *eb)
{
    const char *signatures;
    uint8_t id[NOTE_KEY_ID_BYTES], signature[SIGNATURE_BYTES];
    struct note note;
    struct line line;
    bool is_signed = false;

    enum err e = parse_body(text, &note, &signatures, eb);
    if (e != ERR_OK)
        return e;
    size_t body_size = (size_t)(signatures - text) - 1; /* without the blank line */
    note_key_id(note.origin, public_key, id);
    if (signatures[0] == '\0')
        return err_set(eb, ERR_CORRUPT, "checkpoint of %s: no signature", note.origin);
    while (signatures[0] != '\0') {
        struct signature_line parts;
        if (!line_next(&signatures, &line) || !parse_signature(line, &parts))
            return err_set(eb, ERR_CORRUPT, "checkpoint of %s: malformed signature line",
                           note.origin);
        if (parts.name.size != strlen(note.origin) ||
            memcmp(parts.name.text, note.origin, parts.name.size) != 0)
            continue;
        if (!parse_base64(parts.signature, signature, sizeof signature))
            return err_set(eb, ERR_CORRUPT, "checkpoint of %s: malformed signature", note.origin);
        if (memcmp(signature, id, sizeof id) != 0)
            continue; /* a key of the same name, from before or after */
        if (!crypto_verify(public_key, text, body_size, signature + NOTE_KEY_ID_BYTES))
            return err_set(eb, ERR_CORRUPT, "checkpoint of %s: the signature is wrong",
                           note.origin);
        is_signed = true;
    }
    if (!is_signed)
        return err_set(eb, ERR_CORRUPT, "checkpoint of %s: not signed by the key that is expected",
                       note.origin);
    *ret_note = note;
    return ERR_OK;
}
