/* One batch line in, one out: what is understood, what is passed over, what is refused. */
#include "client/cli/batch_line.h"
#include "client/cli/output.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define CHAT(body)                                                                                 \
    "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":" body "}"
#define TEXT(body)                                                                                 \
    "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":" body "}"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

static enum err parse(const char *text, const char *default_model, struct batch_line *line,
                      struct errbuf *eb)
{
    struct cloister_job defaults = CLOISTER_JOB_INIT;
    defaults.model = default_model;
    defaults.max_tokens = 77;
    return batch_line_parse(text, strlen(text), &defaults, line, eb);
}

static void test_a_chat_line(void **state)
{
    (void)state;
    struct batch_line line;
    struct errbuf eb = {0};
    const char *text =
        "{\"custom_id\":\"q "
        "\\u00e9\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{"
        "\"model\":\"smollm2\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one \"},"
        "{\"type\":\"text\",\"text\":\"two\"}]}],\"max_completion_tokens\":9,\"temperature\":0.5,"
        "\"top_p\":0.9,\"top_k\":40,\"min_p\":0.1,\"repetition_penalty\":1.1,"
        "\"presence_penalty\":0.2,\"frequency_penalty\":-0.3,\"seed\":7,\"stop\":[\"x\",\"yz\"],"
        "\"user\":\"me\",\"n\":1,\"stream\":false,\"logprobs\":null,\"priority\":9,"
        "\"response_format\":{\"type\":\"text\"},\"tools\":[],\"metadata\":{\"a\":1}}}";
    assert_int_equal(parse(text, NULL, &line, &eb), ERR_OK);
    assert_string_equal(line.custom_id, "q \xC3\xA9");
    assert_true(line.chat);
    assert_true(line.has_seed);
    const struct cloister_job *j = &line.job;
    assert_string_equal(j->model, "smollm2");
    assert_int_equal(j->n_messages, 2);
    assert_string_equal(j->messages[0].role, "system");
    assert_int_equal(j->messages[1].content.size, 7);
    assert_memory_equal(j->messages[1].content.data, "one two", 7);
    assert_int_equal(j->max_tokens, 9);
    assert_true(j->sampling.temperature == 0.5f && j->sampling.top_p == 0.9f);
    assert_true(j->sampling.min_p == 0.1f && j->sampling.repetition_penalty == 1.1f);
    assert_true(j->sampling.frequency_penalty == -0.3f);
    assert_int_equal(j->sampling.top_k, 40);
    assert_int_equal(j->sampling.seed, 7);
    assert_int_equal(j->n_stops, 2);
    assert_memory_equal(j->stops[1].data, "yz", 2);
    assert_int_equal(j->priority, 9);
    batch_line_fini(&line);
}

static void test_what_is_drawn(void **state)
{
    (void)state;
    struct batch_line line;
    struct errbuf eb = {0};
    assert_int_equal(parse(CHAT("{" HELLO ",\"temperature\":1,\"n\":3,\"typical_p\":0.5,"
                                "\"logit_bias\":{\"50256\":-100,\"0\":0.5},"
                                "\"stop_token_ids\":[2,7],\"logprobs\":true,\"top_logprobs\":5}"),
                           "m", &line, &eb),
                     ERR_OK);
    const struct cloister_job *j = &line.job;
    assert_int_equal(line.n_choices, 3);
    assert_true(j->typical_p == 0.5f);
    assert_int_equal(j->n_logit_bias, 2);
    assert_int_equal(j->logit_bias[0].id, 50256);
    assert_true(j->logit_bias[0].bias == -100 && j->logit_bias[1].bias == 0.5f);
    assert_int_equal(j->n_stop_tokens, 2);
    assert_int_equal(j->stop_tokens[1], 7);
    assert_true(j->logprobs);
    assert_int_equal(j->top_logprobs, 5);
    batch_line_fini(&line);
    assert_int_equal(
        parse(CHAT("{" HELLO ",\"logprobs\":false,\"logit_bias\":{}}"), "m", &line, &eb), ERR_OK);
    assert_false(line.job.logprobs);
    assert_int_equal(line.n_choices, 1);
    batch_line_fini(&line);
    assert_int_equal(parse(TEXT("{\"prompt\":\"once\",\"logprobs\":2}"), "m", &line, &eb), ERR_OK);
    assert_true(line.job.logprobs);
    assert_int_equal(line.job.top_logprobs, 2);
    batch_line_fini(&line);
}

static void test_completion_lines(void **state)
{
    (void)state;
    struct batch_line line;
    struct errbuf eb = {0};
    assert_int_equal(parse(TEXT("{\"prompt\":\"once\"}"), "m", &line, &eb), ERR_OK);
    assert_false(line.chat);
    assert_string_equal(line.job.model, "m");
    assert_int_equal(line.job.max_tokens, 77);
    assert_memory_equal(line.job.text.data, "once", 4);
    batch_line_fini(&line);
    assert_int_equal(parse(TEXT("{\"prompt\":[\"once\"],\"stop\":\"x\"}"), "m", &line, &eb),
                     ERR_OK);
    assert_int_equal(line.job.n_stops, 1);
    batch_line_fini(&line);
    assert_int_equal(parse(TEXT("{\"prompt\":[1,2,3]}"), "m", &line, &eb), ERR_OK);
    assert_int_equal(line.job.n_prompt_ids, 3);
    assert_int_equal(line.job.prompt_ids[2], 3);
    batch_line_fini(&line);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } table[] = {
        {"", "not JSON: '[' or '{' expected near end of file (column 0)"},
        {"[]", "the line is not a JSON object"},
        {"{\"custom_id\":\"a\"}", "method must be \"POST\""},
        {"{\"custom_id\":7}", "custom_id must be a text of 1 to 512 bytes"},
        {"{\"custom_id\":\"\"}", "custom_id must be a text of 1 to 512 bytes"},
        {"{\"method\":\"POST\"}", "custom_id must be a text of 1 to 512 bytes"},
        {"{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{}}",
         "method must be \"POST\""},
        {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{}}",
         "url must be \"/v1/chat/completions\" or \"/v1/completions\""},
        {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\"}",
         "body must be an object"},
        {"{\"custom_id\":\"a\",\"extra\":1}", "extra is not understood"},
        {CHAT("{}"), "body.model is missing, and neither --model nor client.cfg names one"},
        {CHAT("{\"model\":\"m\"}"), "body.messages is missing"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"n\":129}"), "body.n must be a whole number, 1 to 128"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"n\":2}"),
         "body.n is 2, and all answers would be the same at temperature 0"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"logit_bias\":{\"7\":101}}"),
         "body.logit_bias of token 7 must be a number, -100 to 100"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"logit_bias\":{\"07\":1}}"),
         "body.logit_bias: 07 is not a token id"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"logit_bias\":[7]}"),
         "body.logit_bias must be an object of token ids"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"stop_token_ids\":[-1]}"),
         "body.stop_token_ids[0] is not a token id"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"top_logprobs\":2}"),
         "body.top_logprobs is 2, but logprobs is not true"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"logprobs\":2}"), "body.logprobs must be true or false"},
        {TEXT("{\"model\":\"m\",\"prompt\":\"a\",\"logprobs\":21}"),
         "body.logprobs must be a whole number, 0 to 20"},
        {TEXT("{\"model\":\"m\",\"prompt\":\"a\",\"top_logprobs\":1}"),
         "body.top_logprobs is not understood"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"typical_p\":2}"),
         "body.typical_p must be a number, 0 to 1"},
        {TEXT("{\"model\":\"m\"}"), "body.prompt is missing"},
        {CHAT("{\"model\":\"m\",\"model\":\"n\"," HELLO "}"), NULL},
        {CHAT("{\"model\":\"\"," HELLO "}"), "body.model must be a name of 1 to 128 bytes"},
        {CHAT("{\"model\":\"a\\n\"," HELLO "}"), "body.model must be a name of 1 to 128 bytes"},
        {CHAT("{\"model\":\"m\",\"messages\":[]}"),
         "body.messages must be a list with at least one message"},
        {CHAT("{\"model\":\"m\",\"messages\":[{\"content\":\"x\"}]}"),
         "body.messages[0].role is missing or no name"},
        {CHAT("{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}"),
         "body.messages[0].content must be a string or a list of text parts"},
        {CHAT("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
              "\"image_url\"}]}]}"),
         "body.messages[0].content[0] is not a text part, and only text is understood"},
        {CHAT("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\","
              "\"tool_calls\":[]}]}"),
         "body.messages[0].tool_calls is not understood"},
        {CHAT("{\"model\":\"m\",\"prompt\":\"x\"}"), "body.prompt is not understood"},
        {TEXT("{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}"),
         "body.prompt[0] is not a token id; a line has one prompt"},
        {TEXT("{\"model\":\"m\",\"prompt\":[-1]}"),
         "body.prompt[0] is not a token id; a line has one prompt"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"max_tokens\":0}"),
         "body.max_tokens must be a whole number, 1 to 1048576"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"max_tokens\":1.5}"),
         "body.max_tokens must be a whole number, 1 to 1048576"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"temperature\":-1}"),
         "body.temperature must be a number, 0 to 100"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"top_p\":\"1\"}"),
         "body.top_p must be a number, 0 to 1"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"best_of\":2}"),
         "body.best_of is not supported, except as 1"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"stream\":true}"),
         "body.stream is not supported, except as false"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"tools\":[{}]}"),
         "body.tools is not supported, except as an empty one"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"response_format\":{\"type\":\"json_object\"}}"),
         "body.response_format is not supported, except as {\"type\":\"text\"}"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"stop\":[\"\"]}"),
         "body.stop[0] must be a text of 1 to 256 bytes"},
        {CHAT("{\"model\":\"m\"," HELLO ",\"temprature\":1}"), "body.temprature is not understood"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct batch_line line;
        struct errbuf eb = {0};
        assert_int_not_equal(parse(table[i].text, NULL, &line, &eb), ERR_OK);
        if (table[i].says)
            assert_string_equal(eb.text, table[i].says);
        assert_true(strlen(eb.text) > 0);
        batch_line_fini(&line);
    }
}

/* The custom_id of a bad line is still there for its error. */
static void test_custom_id_of_a_bad_line(void **state)
{
    (void)state;
    struct batch_line line;
    struct errbuf eb = {0};
    assert_int_not_equal(parse(CHAT("{\"n\":2}"), "m", &line, &eb), ERR_OK);
    assert_string_equal(line.custom_id, "a");
    batch_line_fini(&line);
}

static void test_deep_and_huge(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    struct batch_line line;
    struct errbuf eb = {0};
    char *deep = malloc(DEPTH + 1);
    memset(deep, '[', DEPTH);
    deep[DEPTH] = 0;
    assert_int_equal(parse(deep, NULL, &line, &eb), ERR_INVALID);
    batch_line_fini(&line);
    free(deep);
    char *huge = malloc(BATCH_LINE_BYTES + 2);
    memset(huge, ' ', BATCH_LINE_BYTES + 1);
    huge[BATCH_LINE_BYTES + 1] = 0;
    assert_int_equal(parse(huge, NULL, &line, &eb), ERR_TOO_LARGE);
    batch_line_fini(&line);
    free(huge);
}

static json_t *written(const struct batch_answer *answer)
{
    struct buf out;
    json_error_t error;
    buf_init(&out);
    batch_line_write(answer, &out);
    assert_int_equal(out.data[out.size - 1], '\n');
    assert_null(memchr(out.data, '\n', out.size - 1));
    json_t *value = json_loadb(buf_str(&out), out.size, JSON_ALLOW_NUL, &error);
    assert_non_null(value);
    char id[CLOISTER_ID_BYTES];
    bool failed;
    assert_true(batch_line_read(buf_str(&out), out.size, id, &failed));
    assert_int_equal(failed, answer->error != CLOISTER_OK || answer->state != CLOISTER_STATE_DONE);
    assert_string_equal(id, answer->id);
    buf_fini(&out);
    return value;
}

static json_t *at(json_t *value, const char *path)
{
    char copy[128], *rest = copy, *name;
    snprintf(copy, sizeof copy, "%s", path);
    while ((name = strsep(&rest, ".")))
        value = json_is_array(value) ? json_array_get(value, (size_t)atoi(name))
                                     : json_object_get(value, name);
    return value;
}

static void test_an_answer(void **state)
{
    (void)state;
    struct batch_choice choice = {.text = {"hi \xC3\xA9\xFF\n", 7},
                                  .finish = CLOISTER_FINISH_LENGTH};
    struct batch_answer answer = {
        .id = "0123456789abcdef0123456789abcdef",
        .custom_id = "q1",
        .model = "m",
        .chat = true,
        .choices = &choice,
        .n_choices = 1,
        .state = CLOISTER_STATE_DONE,
        .error_text = "",
        .usage = {.prompt_tokens = 10, .prompt_cached = 4, .completion_tokens = 3},
        .created = 1700000000};
    json_t *v = written(&answer);
    assert_string_equal(json_string_value(at(v, "custom_id")), "q1");
    assert_int_equal(json_integer_value(at(v, "response.status_code")), 200);
    assert_true(json_is_null(at(v, "error")));
    assert_string_equal(json_string_value(at(v, "response.body.object")), "chat.completion");
    assert_string_equal(json_string_value(at(v, "response.body.choices.0.message.content")),
                        "hi \xC3\xA9\xEF\xBF\xBD\n");
    assert_string_equal(json_string_value(at(v, "response.body.choices.0.finish_reason")),
                        "length");
    assert_int_equal(json_integer_value(at(v, "response.body.usage.total_tokens")), 13);
    assert_int_equal(
        json_integer_value(at(v, "response.body.usage.prompt_tokens_details.cached_tokens")), 4);
    json_decref(v);
    choice.text = (struct cloister_bytes){"a\0b", 3};
    json_decref(written(&answer)); /* it is known again when the batch goes on */
    answer.chat = false;
    choice.finish = CLOISTER_FINISH_STOP;
    v = written(&answer);
    assert_string_equal(json_string_value(at(v, "response.body.object")), "text_completion");
    assert_string_equal(json_string_value(at(v, "response.body.choices.0.finish_reason")), "stop");
    assert_non_null(at(v, "response.body.choices.0.text"));
    json_decref(v);
}

static void test_logprobs_in_both_forms(void **state)
{
    (void)state;
    static const struct cloister_logprob top[] = {{.id = 7, .logprob = -0.5f, .bytes = {"a", 1}},
                                                  {.id = 8, .logprob = -2, .bytes = {"\xC3", 1}}};
    static const struct cloister_logprob tokens[] = {
        {.id = 7, .logprob = -0.5f, .bytes = {"\xC3\xA9", 2}, .top = top, .n_top = 2},
        {.id = 9, .logprob = -9999, .bytes = {"b", 1}}};
    const struct cloister_event event = {.n_ids = 2, .logprobs = tokens};
    struct batch_choice choices[2] = {{.text = {"x", 1}, .finish = CLOISTER_FINISH_STOP},
                                      {.text = {"y", 1}, .finish = CLOISTER_FINISH_LENGTH}};
    struct batch_answer answer = {.id = "0123456789abcdef0123456789abcdef",
                                  .custom_id = "q1",
                                  .model = "m",
                                  .chat = true,
                                  .choices = choices,
                                  .n_choices = 2,
                                  .state = CLOISTER_STATE_DONE,
                                  .error_text = ""};
    choices[1].logprobs = json_array();
    output_logprobs_add(choices[1].logprobs, &event);
    json_t *v = written(&answer);
    json_t *first = at(v, "response.body.choices.0"), *second = at(v, "response.body.choices.1");
    assert_true(json_is_null(at(first, "logprobs")));
    assert_int_equal(json_integer_value(at(second, "index")), 1);
    assert_string_equal(json_string_value(at(second, "message.content")), "y");
    assert_string_equal(json_string_value(at(second, "finish_reason")), "length");
    json_t *content = at(second, "logprobs.content");
    assert_int_equal(json_array_size(content), 2);
    assert_string_equal(json_string_value(at(content, "0.token")), "\xC3\xA9");
    assert_true(json_number_value(at(content, "0.logprob")) == -0.5);
    assert_int_equal(json_integer_value(at(content, "0.bytes.1")), 0xA9);
    assert_string_equal(json_string_value(at(content, "0.top_logprobs.1.token")), "\xEF\xBF\xBD");
    assert_int_equal(json_integer_value(at(content, "0.top_logprobs.1.bytes.0")), 0xC3);
    assert_true(json_number_value(at(content, "1.logprob")) == -9999);
    assert_int_equal(json_array_size(at(content, "1.top_logprobs")), 0);
    json_decref(v);
    answer.chat = false;
    v = written(&answer);
    second = at(v, "response.body.choices.1.logprobs");
    assert_string_equal(json_string_value(at(second, "tokens.1")), "b");
    assert_true(json_number_value(at(second, "token_logprobs.0")) == -0.5);
    assert_true(json_number_value(at(second, "top_logprobs.0.a")) == -0.5);
    assert_int_equal(json_integer_value(at(second, "text_offset.1")), 1);
    json_decref(v);
    json_decref(choices[1].logprobs);
}

static void test_failures_have_status_codes(void **state)
{
    (void)state;
    static const struct {
        enum cloister_error error;
        enum cloister_state state;
        int code;
    } table[] = {
        {CLOISTER_ERROR_INVALID, CLOISTER_STATE_REJECTED, 400},
        {CLOISTER_ERROR_REFUSED, CLOISTER_STATE_REJECTED, 403},
        {CLOISTER_ERROR_NOT_FOUND, CLOISTER_STATE_REJECTED, 404},
        {CLOISTER_ERROR_TOO_LARGE, CLOISTER_STATE_REJECTED, 413},
        {CLOISTER_OK, CLOISTER_STATE_CANCELLED, 499},
        {CLOISTER_OK, CLOISTER_STATE_EXPIRED, 504},
        {CLOISTER_OK, CLOISTER_STATE_FAILED, 500},
        {CLOISTER_ERROR_CORRUPT, CLOISTER_STATE_FAILED, 500},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct batch_answer answer = {.id = "0123456789abcdef0123456789abcdef",
                                      .custom_id = "q",
                                      .model = "m",
                                      .state = table[i].state,
                                      .error = table[i].error,
                                      .error_text = "why"};
        json_t *v = written(&answer);
        assert_int_equal(json_integer_value(at(v, "response.status_code")), table[i].code);
        assert_string_equal(json_string_value(at(v, "response.body.error.message")), "why");
        json_decref(v);
    }
}

static void test_an_invalid_line(void **state)
{
    (void)state;
    struct buf out;
    json_error_t error;
    char id[CLOISTER_ID_BYTES];
    buf_init(&out);
    batch_line_write_invalid("0123456789abcdef0123456789abcdef", NULL, "line 3: \x1b", &out);
    json_t *v = json_loadb(buf_str(&out), out.size, 0, &error);
    assert_non_null(v);
    assert_true(json_is_null(at(v, "custom_id")));
    assert_true(json_is_null(at(v, "response")));
    assert_string_equal(json_string_value(at(v, "error.code")), "invalid_line");
    bool failed = false;
    assert_true(batch_line_read(buf_str(&out), out.size, id, &failed));
    assert_true(failed);
    json_decref(v);
    buf_fini(&out);
}

static void test_lines_that_are_not_ours(void **state)
{
    (void)state;
    static const char *const table[] = {
        "",
        "x",
        "{}",
        "{\"id\":7}",
        "{\"id\":\"batch_req_\"}",
        "{\"id\":\"batch_req_0123456789abcdef0123456789abcdeX\"}",
        "{\"id\":\"batch_req_0123456789abcdef0123456789abcdef0\"}",
        "{\"id\":\"0123456789abcdef0123456789abcdef\"}",
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        char id[CLOISTER_ID_BYTES];
        bool failed;
        assert_false(batch_line_read(table[i], strlen(table[i]), id, &failed));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chat_line),
        cmocka_unit_test(test_completion_lines),
        cmocka_unit_test(test_what_is_drawn),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_custom_id_of_a_bad_line),
        cmocka_unit_test(test_deep_and_huge),
        cmocka_unit_test(test_an_answer),
        cmocka_unit_test(test_logprobs_in_both_forms),
        cmocka_unit_test(test_failures_have_status_codes),
        cmocka_unit_test(test_an_invalid_line),
        cmocka_unit_test(test_lines_that_are_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
