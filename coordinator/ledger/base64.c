#include "coordinator/ledger/base64.h"

#include "common/check.h"

#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

void base64_encode(const void *bytes, size_t size, char *ret_text)
{
    CHECK(size <= INT_MAX / 2);
    int n = EVP_EncodeBlock((unsigned char *)ret_text, bytes, (int)size);
    CHECK((size_t)n + 1 == BASE64_TEXT_BYTES(size));
}

bool base64_decode(const char *text, size_t text_size, struct buf *out)
{
    buf_clear(out);
    if (text_size % 4 != 0 || text_size > INT_MAX / 2)
        return false;
    /* Room for the bytes and, behind them, for the text that they should have had. */
    if (!buf_reserve(out, text_size / 4 * 3 + text_size + 1))
        return false;
    if (text_size == 0)
        return true;
    int n = EVP_DecodeBlock(out->data, (const unsigned char *)text, (int)text_size);
    if (n < 0)
        return false;
    size_t size = (size_t)n; /* libcrypto counts the padding as bytes */
    size -= (size_t)(text[text_size - 1] == '=') + (size_t)(text[text_size - 2] == '=');
    char *again = (char *)out->data + text_size / 4 * 3;
    base64_encode(out->data, size, again);
    if (memcmp(again, text, text_size) != 0)
        return false;
    out->size = size;
    out->data[size] = 0;
    return true;
}
