#include "common/id.h"

#include "common/clock.h"
#include "common/crypto.h"

#include <string.h>

struct id id_new(void)
{
    struct id id;
    uint64_t ms = clock_wall_ns() / 1000000u;

    crypto_random(id.bytes, sizeof id.bytes);
    for (int i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | 0x70);
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80);
    return id;
}

void id_format(const struct id *id, char ret_text[ID_TEXT_BYTES])
{
    hex_encode(id->bytes, sizeof id->bytes, ret_text);
}

bool id_parse(const char *text, struct id *ret_id)
{
    struct id id;
    if (!hex_decode(text, id.bytes, sizeof id.bytes))
        return false;
    *ret_id = id;
    return true;
}

int id_compare(const struct id *a, const struct id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

bool id_is_zero(const struct id *id)
{
    static const struct id zero;
    return id_compare(id, &zero) == 0;
}
