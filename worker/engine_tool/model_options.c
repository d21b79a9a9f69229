#include "worker/engine_tool/model_options.h"

#include "common/check.h"
#include "common/limits.h"
#include "worker/engine_tool/tool.h"

#include <string.h>

static int take_u32(const char *command, const char *name, const char *text, uint32_t min,
                    uint32_t max, uint32_t *ret_value)
{
    if (tool_parse_u32(text, min, max, ret_value))
        return TOOL_EXIT_OK;
    return tool_usage("%s: --%s %s: a whole number from %u to %u", command, name, text, min, max);
}

int model_options_take(struct model_options *o, const char *command, int id, const char *text)
{
    switch (id) {
    case MODEL_OPTION_THREADS:
        return take_u32(command, "threads", text, 1, 4096, &o->engine.threads);
    case MODEL_OPTION_ISA:
        if (!backend_isa_parse(text, &o->engine.isa))
            return tool_usage("%s: --isa %s: auto, scalar, avx2 or avx512", command, text);
        return TOOL_EXIT_OK;
    case MODEL_OPTION_KV:
        if (strcmp(text, "f16") == 0)
            o->model.kv_type = KV_TYPE_F16;
        else if (strcmp(text, "q8_0") == 0)
            o->model.kv_type = KV_TYPE_Q8_0;
        else
            return tool_usage("%s: --kv %s: f16 or q8_0", command, text);
        return TOOL_EXIT_OK;
    case MODEL_OPTION_CONTEXT:
        return take_u32(command, "context", text, 2, LIMIT_CONTEXT_TOKENS,
                        &o->model.context_tokens);
    case MODEL_OPTION_SLOTS:
        return take_u32(command, "slots", text, 1, 65536, &o->model.slots);
    case MODEL_OPTION_JSON:
        o->json = true;
        return TOOL_EXIT_OK;
    default:
        CHECK(false);
        return TOOL_EXIT_USAGE;
    }
}
