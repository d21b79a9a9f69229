#include "client/digits.h"

#include "common/crypto.h"

#include <string.h>

bool digits_parse(const char *text, size_t most, bool from_end, struct digits *ret_digits)
{
    struct digits d = {.count = strspn(text, "0123456789abcdefABCDEF")};
    char even[CLOISTER_ID_BYTES] = "";
    if (text[d.count] || d.count > most)
        return false;
    for (size_t i = 0; i < d.count; i++)
        d.text[i] = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a' : text[i]);
    memcpy(even, d.text + (from_end ? d.count % 2 : 0), d.count - d.count % 2);
    *ret_digits = d;
    return hex_decode(even, ret_digits->bytes, d.count / 2);
}
