/*
 * note.h - a checkpoint as a C2SP signed note: what the log says about itself, and its signature.
 *
 *     cloister.example/ledger            origin, which is also the name of the key
 *     1234                               records
 *     yLp…=                              root, base64
 *                                        (blank)
 *     — cloister.example/ledger AbC…=    base64 of key id (4 bytes) and Ed25519 signature (64)
 *
 * What is signed is the first three lines with their newlines. Key id: the first 4 bytes of
 * SHA-256(name || "\n" || 0x01 || public key). Lines that extend the checkpoint are refused;
 * further signatures (a witness's) may follow and are left to those who know their keys.
 *
 * Sources: C2SP signed-note and tlog-checkpoint. Thread: any.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_NOTE_H
#define CLOISTER_COORDINATOR_LEDGER_NOTE_H

#include "common/crypto.h"
#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

#define NOTE_ORIGIN_BYTES   256  /* with NUL */
#define NOTE_TEXT_BYTES     1024 /* what note_sign writes, with NUL */
#define NOTE_TEXT_BYTES_MAX 8192 /* what note_open reads: room for witnesses */
#define NOTE_KEY_ID_BYTES   4

struct note {
    char origin[NOTE_ORIGIN_BYTES];
    uint64_t size;
    uint8_t root[SHA256_BYTES];
};

/* 1 to 255 printable ASCII characters, no space, no '+'. */
bool note_origin_valid(const char *origin);
void note_key_id(const char *name, const uint8_t public_key[ED25519_PUBLIC_BYTES],
                 uint8_t ret_id[NOTE_KEY_ID_BYTES]);

enum err note_sign(const struct note *note, const struct crypto_key *key,
                   char ret_text[NOTE_TEXT_BYTES], struct errbuf *eb);

/* Reads without believing it. ERR_CORRUPT. */
enum err note_parse(const char *text, struct note *ret_note, struct errbuf *eb);
/* ERR_CORRUPT where it is malformed, where the key named by its origin did not sign it, or where
 * that signature is wrong. */
enum err note_open(const char *text, const uint8_t public_key[ED25519_PUBLIC_BYTES],
                   struct note *ret_note, struct errbuf *eb);

#endif
