/* The one word that a file's quantization has for people. */
#include "tests/unit/model/gguf_build.h"

#include "worker/kernels/quant_type.h"
#include "worker/model/file_type.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SILENT = -1, TEXT = -2 };

/* Of a file that is mostly Q5_K and says `stated`. */
static void test_what_the_file_says_else_what_it_holds(void **state)
{
    static const struct {
        int stated;
        const char *name;
    } table[] = {
        {SILENT, "Q5_K"}, {TEXT, "Q5_K"}, {0, "F32"},     {1, "F16"},          {3, "Q4_1"},
        {4, "Q5_K"},      {7, "Q8_0"},    {15, "Q4_K_M"}, {17, "Q5_K_M"},      {35, "Q5_K"},
        {41, "Q2_0"},     {42, "Q5_K"},   {1024, "Q5_K"}, {1024 + 15, "Q5_K"}, {0x7fffffff, "Q5_K"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct gguf_build b;
        struct buf file;
        struct gguf *g = NULL;
        gguf_build_init(&b);
        if (table[i].stated == TEXT)
            gguf_build_string(&b, "general.file_type", "Q4_K_M");
        else if (table[i].stated != SILENT)
            gguf_build_u32(&b, "general.file_type", (uint32_t)table[i].stated);
        gguf_build_tensor(&b, "a", QUANT_TYPE_Q5_K, 256, 8);
        gguf_build_tensor(&b, "b", QUANT_TYPE_Q8_0, 256, 4);
        gguf_build_finish(&b, &file);
        assert_int_equal(gguf_open_memory(&g, file.data, file.size, NULL), ERR_OK);
        assert_string_equal(model_file_type_name(g), table[i].name);
        gguf_close(g);
        buf_fini(&file);
        gguf_build_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_file_says_else_what_it_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
