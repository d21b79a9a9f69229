#include "client/cli/progress.h"

#include "common/units.h"

#include <stdio.h>
#include <string.h>

#define BAR_COLUMNS 20u

void progress_format(const struct progress *p, const struct progress_now *now, unsigned columns,
                     char ret_text[PROGRESS_TEXT_BYTES])
{
    char bar[BAR_COLUMNS + 1], left[UNITS_TEXT_BYTES] = "", failed[48] = "";
    size_t filled = p->total > 0 ? now->done * BAR_COLUMNS / p->total : BAR_COLUMNS;
    for (size_t i = 0; i < BAR_COLUMNS; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR_COLUMNS] = 0;
    uint64_t elapsed_ms = now->now_ms - p->began_ms;
    size_t here = now->done - p->done_before;
    double seconds = (double)(elapsed_ms ? elapsed_ms : 1) / 1000;
    double rate = (double)here / seconds;
    if (here > 0 && now->done < p->total)
        units_duration_format((uint64_t)((double)(p->total - now->done) / rate * 1000), left);
    if (now->failed > 0)
        snprintf(failed, sizeof failed, ", %zu with errors", now->failed);
    char text[PROGRESS_TEXT_BYTES];
    snprintf(text, sizeof text, "[%s] %zu/%zu %zu %%  %.1f lines/s  %.0f tokens/s%s%s%s%s", bar,
             now->done, p->total, p->total > 0 ? now->done * 100 / p->total : 100, rate,
             (double)now->tokens / seconds, left[0] ? "  " : "", left, left[0] ? " left" : "",
             failed);
    if (columns > 0 && columns < sizeof text && strlen(text) >= columns)
        text[columns - 1] = 0;
    memcpy(ret_text, text, sizeof text);
}
