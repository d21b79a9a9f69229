/* make_export FILE SIGNED UNSIGNED: a ledger of that many jobs before and after its last
 * checkpoint, exported to FILE. For tests that check the file with other tools. */
#include "tests/unit/ledger/ledger_test.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct ledger_test t;
    struct buf out;
    struct errbuf eb = {{0}};

    if (argc != 4) {
        fprintf(stderr, "usage: make_export FILE SIGNED UNSIGNED\n");
        return 2;
    }
    unsigned long with = strtoul(argv[2], NULL, 10), without = strtoul(argv[3], NULL, 10);
    buf_init(&out);
    ledger_test_open(&t, STORE_TEST_MEM);
    if (with > 0)
        ledger_test_fill(&t, 0, with);
    if (ledger_checkpoint_sign(t.ledger, &eb) != ERR_OK) {
        fprintf(stderr, "%s\n", eb.text);
        return 1;
    }
    if (without > 0)
        ledger_test_fill(&t, with, without);
    ledger_test_export(&t, &out);
    FILE *f = fopen(argv[1], "w");
    bool ok = f != NULL && fwrite(out.data, 1, out.size, f) == out.size;
    ok = f != NULL && fclose(f) == 0 && ok;
    ledger_test_close(&t);
    buf_fini(&out);
    return ok ? 0 : 1;
}
