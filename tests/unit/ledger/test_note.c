/* Checkpoints as signed notes: the bytes others expect, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/crypto.h"
#include "coordinator/ledger/base64.h"
#include "coordinator/ledger/note.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The key, name and signature of the example in the documentation of Go's sumdb/note. */
static void key_id_and_signature_agree_with_an_implementation_not_ours(void **state)
{
    (void)state;
    static const char text[] = "If you think cryptography is the answer to your problem,\n"
                               "then you don't know what your problem is.\n";
    static const char key_text[] = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    static const char signature_text[] =
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2"
        "pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    struct buf key, signature;
    uint8_t id[NOTE_KEY_ID_BYTES];

    buf_init(&key);
    buf_init(&signature);
    assert_true(base64_decode(key_text, strlen(key_text), &key));
    assert_true(base64_decode(signature_text, strlen(signature_text), &signature));
    assert_int_equal(key.size, 1 + ED25519_PUBLIC_BYTES);
    assert_int_equal(signature.size, NOTE_KEY_ID_BYTES + ED25519_SIGN_BYTES);
    note_key_id("PeterNeumann", key.data + 1, id);
    assert_memory_equal(id, "\xc7\x4f\x20\xa3", 4);
    assert_memory_equal(id, signature.data, 4);
    assert_true(crypto_verify(key.data + 1, text, strlen(text), signature.data + 4));
    buf_fini(&key);
    buf_fini(&signature);
}

struct signer {
    struct crypto_key *key;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    struct note note;
    char text[NOTE_TEXT_BYTES];
};

static void signer_make(struct signer *s)
{
    struct errbuf eb = {{0}};
    *s = (struct signer){0};
    assert_int_equal(crypto_key_new(&s->key, &eb), ERR_OK);
    crypto_key_public(s->key, s->public_key);
    memcpy(s->note.origin, "cloister.example/ledger", 24);
    s->note.size = 1234;
    memset(s->note.root, 0xa5, sizeof s->note.root);
    assert_int_equal(note_sign(&s->note, s->key, s->text, &eb), ERR_OK);
}

static void signed_note_has_the_form_of_the_specification(void **state)
{
    (void)state;
    struct signer s;
    struct note back;
    struct errbuf eb = {{0}};
    static const char start[] = "cloister.example/ledger\n1234\n"
                                "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU=\n\n"
                                "\xe2\x80\x94 cloister.example/ledger ";

    signer_make(&s);
    assert_memory_equal(s.text, start, strlen(start));
    assert_int_equal(strlen(s.text), strlen(start) + 92 + 1);
    assert_int_equal(s.text[strlen(s.text) - 1], '\n');
    assert_int_equal(note_open(s.text, s.public_key, &back, &eb), ERR_OK);
    assert_string_equal(back.origin, s.note.origin);
    assert_int_equal(back.size, 1234);
    assert_memory_equal(back.root, s.note.root, sizeof back.root);
    crypto_key_free(s.key);
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct signer s;
    signer_make(&s);
    for (size_t i = 0; i < strlen(s.text); i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            char text[NOTE_TEXT_BYTES];
            struct note back;
            memcpy(text, s.text, sizeof text);
            text[i] = (char)(text[i] ^ (1 << bit));
            if (note_open(text, s.public_key, &back, NULL) == ERR_OK)
                fail_msg("byte %zu bit %u went unnoticed", i, bit);
        }
    }
    crypto_key_free(s.key);
}

static void signatures_of_others_may_stand_beside_ours(void **state)
{
    (void)state;
    struct signer s;
    struct note back;
    struct errbuf eb = {{0}};
    char text[2 * NOTE_TEXT_BYTES];

    signer_make(&s);
    (void)snprintf(text, sizeof text, "%s\xe2\x80\x94 witness.example AAAAAQID\n", s.text);
    assert_int_equal(note_open(text, s.public_key, &back, &eb), ERR_OK);
    (void)snprintf(text, sizeof text, "%switness.example AAAAAQID\n", s.text);
    assert_int_equal(note_open(text, s.public_key, &back, &eb), ERR_CORRUPT);
    assert_non_null(strstr(eb.text, "malformed signature line"));
    crypto_key_free(s.key);
}

static void what_is_not_a_checkpoint_is_refused_with_a_reason(void **state)
{
    (void)state;
#define ROOT "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU="
    static const struct {
        const char *text;
        const char *reason;
    } cases[] = {
        {"", "no origin line"},
        {"origin", "no origin line"},
        {"two words\n1\n" ROOT "\n\n", "malformed origin"},
        {"a+b\n1\n" ROOT "\n\n", "malformed origin"},
        {"\n1\n" ROOT "\n\n", "malformed origin"},
        {"o\n\n" ROOT "\n\n", "not a number of records"},
        {"o\n01\n" ROOT "\n\n", "not a number of records"},
        {"o\n-1\n" ROOT "\n\n", "not a number of records"},
        {"o\n1 \n" ROOT "\n\n", "not a number of records"},
        {"o\n18446744073709551616\n" ROOT "\n\n", "not a number of records"},
        {"o\n1\nAAAA\n\n", "not a root hash"},
        {"o\n1\npaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaV=\n\n", "not a root hash"},
        {"o\n1\n" ROOT "\nextension\n\n", "no blank line"},
        {"o\n1\n" ROOT "\n", "no blank line"},
        {"o\n1\n" ROOT "\n\n", "no signature"},
        {"o\n1\n" ROOT "\n\n- o AAAA\n", "malformed signature line"},
        {"o\n1\n" ROOT "\n\n\xe2\x80\x94 o AAAA", "malformed signature line"},
        {"o\n1\n" ROOT "\n\n\xe2\x80\x94 o AAAA\n", "malformed signature"},
        {"o\n1\n" ROOT "\n\n\xe2\x80\x94 p AAAA\n", "not signed by the key"},
    };
    struct signer s;
    signer_make(&s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct note back;
        struct errbuf eb = {{0}};
        assert_int_equal(note_open(cases[i].text, s.public_key, &back, &eb), ERR_CORRUPT);
        if (strstr(eb.text, cases[i].reason) == NULL)
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, eb.text, cases[i].reason);
    }
    crypto_key_free(s.key);
}

static void key_of_another_does_not_open_it(void **state)
{
    (void)state;
    struct signer s, other;
    struct note back;
    struct errbuf eb = {{0}};
    signer_make(&s);
    signer_make(&other);
    assert_int_equal(note_open(s.text, other.public_key, &back, &eb), ERR_CORRUPT);
    assert_non_null(strstr(eb.text, "not signed by the key"));
    crypto_key_free(s.key);
    crypto_key_free(other.key);
}

static void origins_are_checked_before_signing(void **state)
{
    (void)state;
    char longest[NOTE_ORIGIN_BYTES + 1];
    memset(longest, 'x', sizeof longest);
    longest[NOTE_ORIGIN_BYTES] = '\0';
    assert_false(note_origin_valid(longest));
    longest[NOTE_ORIGIN_BYTES - 1] = '\0';
    assert_true(note_origin_valid(longest));
    assert_true(note_origin_valid("cloister.example/ledger"));
    static const char *const bad[] = {"", "a b", "a+b", "a\n", "\xc3\xa9", "a\x7f"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(note_origin_valid(bad[i]));

    /* The longest origin and size still give a note that opens. */
    struct signer s;
    struct note back;
    struct errbuf eb = {{0}};
    signer_make(&s);
    memcpy(s.note.origin, longest, NOTE_ORIGIN_BYTES);
    s.note.size = UINT64_MAX;
    assert_int_equal(note_sign(&s.note, s.key, s.text, &eb), ERR_OK);
    assert_int_equal(note_open(s.text, s.public_key, &back, &eb), ERR_OK);
    assert_true(back.size == UINT64_MAX);
    crypto_key_free(s.key);
}

static void base64_has_one_text_for_one_value(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"", true},         {"TQ==", true},      {"TWE=", true},    {"TWFu", true},
        {"TR==", false},    {"TWF=", false},     {"TQ", false},     {"TQ=", false},
        {"T===", false},    {"====", false},     {"TQ==\n", false}, {" TWFu", false},
        {"TWFuTQ==", true}, {"TQ==TWFu", false}, {"TW-_", false},
    };
    struct buf out;
    buf_init(&out);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (base64_decode(cases[i].text, strlen(cases[i].text), &out) != cases[i].good)
            fail_msg("\"%s\"", cases[i].text);
    }
    for (size_t size = 0; size < 200; size++) {
        uint8_t bytes[200];
        char text[BASE64_TEXT_BYTES(200)];
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)(i * 37 + size);
        base64_encode(bytes, size, text);
        assert_true(base64_decode(text, strlen(text), &out));
        assert_int_equal(out.size, size);
        assert_memory_equal(out.data, bytes, size);
    }
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_id_and_signature_agree_with_an_implementation_not_ours),
        cmocka_unit_test(signed_note_has_the_form_of_the_specification),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(signatures_of_others_may_stand_beside_ours),
        cmocka_unit_test(what_is_not_a_checkpoint_is_refused_with_a_reason),
        cmocka_unit_test(key_of_another_does_not_open_it),
        cmocka_unit_test(origins_are_checked_before_signing),
        cmocka_unit_test(base64_has_one_text_for_one_value),
    };
    return cmocka_run_group_tests_name("note", tests, NULL, NULL);
}
