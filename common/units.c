#include "common/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Ascending, so that writing takes the last that divides. */
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 24 * 3600 * 1000}};
static const struct unit size_units[] = {{"B", 1},
                                         {"KiB", 1ull << 10},
                                         {"MiB", 1ull << 20},
                                         {"GiB", 1ull << 30},
                                         {"TiB", 1ull << 40},
                                         {"kB", 1000},
                                         {"MB", 1000 * 1000},
                                         {"GB", 1000ull * 1000 * 1000},
                                         {"TB", 1000ull * 1000 * 1000 * 1000}};
#define SIZE_UNITS_BINARY 5 /* the first of them, those that writing uses */

/* Reads digits; returns what is behind them, NULL where there are none or too many. */
static const char *units_digits(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return NULL;
        value = value * 10 + digit;
    }
    if (p == text)
        return NULL;
    *ret_value = value;
    return p;
}

bool units_uint_parse(const char *text, uint64_t *ret_value)
{
    uint64_t value;
    const char *rest = units_digits(text, &value);
    if (!rest || *rest)
        return false;
    *ret_value = value;
    return true;
}

bool units_int_parse(const char *text, int64_t *ret_value)
{
    bool negative = *text == '-';
    uint64_t magnitude;
    if (!units_uint_parse(text + negative, &magnitude))
        return false;
    if (magnitude > (uint64_t)INT64_MAX + negative)
        return false;
    if (magnitude == (uint64_t)INT64_MAX + 1)
        *ret_value = INT64_MIN;
    else
        *ret_value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return true;
}

bool units_float_parse(const char *text, double *ret_value)
{
    size_t length = strlen(text);
    if (length == 0 || strspn(text, "0123456789+-.eE") != length || text[0] == '+')
        return false;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return false;
    *ret_value = value;
    return true;
}

bool units_bias_parse(const char *text, int32_t *ret_id, float *ret_bias)
{
    const char *colon = strchr(text, ':');
    char id_text[16];
    uint64_t id;
    double bias;

    if (colon == NULL || (size_t)(colon - text) >= sizeof id_text)
        return false;
    memcpy(id_text, text, (size_t)(colon - text));
    id_text[colon - text] = '\0';
    if (!units_uint_parse(id_text, &id) || id > INT32_MAX || !units_float_parse(colon + 1, &bias))
        return false;
    *ret_id = (int32_t)id;
    *ret_bias = (float)bias;
    return true;
}

static bool units_parse(const char *text, const struct unit *units, size_t n_units,
                        uint64_t *ret_value)
{
    uint64_t value;
    const char *rest = units_digits(text, &value);
    if (!rest)
        return false;
    if (!*rest) {
        if (value != 0)
            return false;
        *ret_value = 0;
        return true;
    }
    for (size_t i = 0; i < n_units; i++) {
        if (strcmp(rest, units[i].name) != 0)
            continue;
        if (value > UINT64_MAX / units[i].factor)
            return false;
        *ret_value = value * units[i].factor;
        return true;
    }
    return false;
}

bool units_duration_parse(const char *text, uint64_t *ret_ms)
{
    return units_parse(text, duration_units, sizeof duration_units / sizeof *duration_units,
                       ret_ms);
}

bool units_size_parse(const char *text, uint64_t *ret_bytes)
{
    return units_parse(text, size_units, sizeof size_units / sizeof *size_units, ret_bytes);
}

bool units_shares_parse(const char *text, size_t most, uint64_t *ret_shares, size_t *ret_count)
{
    char item[UNITS_TEXT_BYTES];
    size_t n = 0;

    for (;;) {
        size_t size = strcspn(text, ",");
        if (size >= sizeof item || n == most)
            return false;
        memcpy(item, text, size);
        item[size] = '\0';
        if (!units_uint_parse(item, &ret_shares[n]) && !units_size_parse(item, &ret_shares[n]))
            return false;
        n++;
        if (text[size] == '\0')
            break;
        text += size + 1;
    }
    *ret_count = n;
    return true;
}

static void units_write(uint64_t value, const struct unit *units, size_t n_units, char *ret_text)
{
    size_t best = 0;
    for (size_t i = 1; i < n_units; i++)
        if (value != 0 && value % units[i].factor == 0)
            best = i;
    snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64 "%s", value / units[best].factor,
             units[best].name);
}

void units_duration_write(uint64_t ms, char ret_text[UNITS_TEXT_BYTES])
{
    if (ms == 0)
        snprintf(ret_text, UNITS_TEXT_BYTES, "0s");
    else
        units_write(ms, duration_units, sizeof duration_units / sizeof *duration_units, ret_text);
}

void units_size_write(uint64_t bytes, char ret_text[UNITS_TEXT_BYTES])
{
    units_write(bytes, size_units, SIZE_UNITS_BINARY, ret_text);
}

void units_duration_format(uint64_t ms, char ret_text[UNITS_TEXT_BYTES])
{
    uint64_t s = ms / 1000;
    if (ms < 1000)
        snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64 " ms", ms);
    else if (s < 60)
        snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
    else if (s < 3600)
        snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64 " min %02" PRIu64 " s", s / 60, s % 60);
    else if (s < 24 * 3600)
        snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64 " h %02" PRIu64 " min", s / 3600,
                 s / 60 % 60);
    else
        snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64 " d %" PRIu64 " h", s / (24 * 3600),
                 s / 3600 % 24);
}

void units_size_format(uint64_t bytes, char ret_text[UNITS_TEXT_BYTES])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    double value = (double)bytes;
    /* 999.95 of a unit would be shown as 1000.0: the next unit says it better. */
    while (value >= 999.5 && unit + 1 < sizeof names / sizeof *names) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64 " B", bytes);
    else
        snprintf(ret_text, UNITS_TEXT_BYTES, "%.*f %s",
                 value < 9.995   ? 2
                 : value < 99.95 ? 1
                                 : 0,
                 value, names[unit]);
}

void units_count_format(uint64_t count, char ret_text[UNITS_TEXT_BYTES])
{
    char digits[UNITS_TEXT_BYTES];
    int n = snprintf(digits, sizeof digits, "%" PRIu64, count);
    char *out = ret_text;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            *out++ = ',';
        *out++ = digits[i];
    }
    *out = 0;
}
