#include "common/date.h"

/* Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms" (civil_from_days), for days since
 * 1970-01-01 that are not negative. */
uint32_t date_of_wall(uint64_t wall_ns)
{
    uint64_t z = wall_ns / 1000000000u / 86400u + 719468u;
    uint64_t era = z / 146097u;
    uint64_t doe = z - era * 146097u;
    uint64_t yoe = (doe - doe / 1460u + doe / 36524u - doe / 146096u) / 365u;
    uint64_t doy = doe - (365u * yoe + yoe / 4u - yoe / 100u);
    uint64_t mp = (5u * doy + 2u) / 153u;
    uint64_t day = doy - (153u * mp + 2u) / 5u + 1u;
    uint64_t month = mp < 10u ? mp + 3u : mp - 9u;
    uint64_t year = yoe + era * 400u + (month <= 2u);
    return (uint32_t)(year * 10000u + month * 100u + day);
}
