"""The outside engine: llama.cpp, by way of llama-cpp-python."""

import ctypes
import heapq


class Engine:
    def __init__(self):
        import llama_cpp

        self.lib = llama_cpp
        # The library speaks a lot; what it refuses is seen from the results.
        self.quiet = llama_cpp.llama_log_callback(lambda level, text, user: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()


class Model:
    """A GGUF file opened by the engine: the vocabulary only, or all of it on the CPU."""

    def __init__(self, engine, path, vocab_only=True, threads=2, context=1280):
        lib = self.lib = engine.lib
        params = lib.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = 0
        params.use_extra_bufts = False
        self.model = lib.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit("llama.cpp refused " + path)
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.vocab_count = lib.llama_vocab_n_tokens(self.vocab)
        self.context = None
        if not vocab_only:
            cp = lib.llama_context_default_params()
            cp.n_ctx = context
            cp.n_batch = context
            cp.n_ubatch = 512
            cp.n_seq_max = 1
            cp.n_threads = cp.n_threads_batch = threads
            cp.type_k = cp.type_v = lib.GGML_TYPE_F16
            # Without flash attention the CPU sums V in float32, not in float16.
            cp.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
            cp.offload_kqv = False
            self.context = lib.llama_init_from_model(self.model, cp)
            assert self.context

    def close(self):
        if self.context:
            self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)

    def tokenize_bytes(self, raw, add_special=False, parse_special=False):
        limit = len(raw) * 2 + 16
        ids = (ctypes.c_int32 * limit)()
        n = self.lib.llama_tokenize(self.vocab, raw, len(raw), ids, limit, add_special, parse_special)
        assert n >= 0
        return list(ids[:n])

    def tokenize(self, text, add_special=False, parse_special=False):
        return self.tokenize_bytes(text.encode("utf-8"), add_special, parse_special)

    def restart(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def decode(self, ids):
        """Feed the ids; the logits after the last one, as a list."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        rc = self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(array, len(ids)))
        assert rc == 0, rc
        logits = self.lib.llama_get_logits_ith(self.context, -1)
        return logits[:self.vocab_count]

    def greedy(self, prompt_ids, count):
        self.restart()
        ids = []
        top2 = []
        feed = prompt_ids
        while len(ids) < count:
            first, second = top_logits(self.decode(feed), 2)
            ids.append(first[0])
            top2.append(first + second)
            if self.lib.llama_vocab_is_eog(self.vocab, ids[-1]):
                break
            feed = ids[-1:]
        return ids, top2

    def forced(self, prompt_ids, ids):
        """The two largest logits at each position of a continuation that is given."""
        self.restart()
        top2 = []
        feed = prompt_ids
        for i in ids:
            first, second = top_logits(self.decode(feed), 2)
            top2.append(first + second)
            feed = [i]
        return top2

    def chat_template(self):
        return self.lib.llama_model_chat_template(self.model, None).decode()


def top_logits(logits, count):
    """The `count` largest as [id, logit], largest first, equal ones by ascending id."""
    best = heapq.nlargest(count, range(len(logits)), key=lambda i: (logits[i], -i))
    return [[i, round(logits[i], 5)] for i in best]


def chat_apply(engine, template, messages, add_generation_prompt):
    """The built-in renderer of llama.cpp, by template name or source; None if it knows none."""
    lib = engine.lib
    keep = [(m["role"].encode(), m["content"].encode()) for m in messages]
    array = (lib.llama_chat_message * max(len(keep), 1))()
    for i, (role, content) in enumerate(keep):
        array[i].role = role
        array[i].content = content
    size = 4096 + 4 * sum(len(r) + len(c) for r, c in keep)
    buf = ctypes.create_string_buffer(size)
    n = lib.llama_chat_apply_template(template.encode(), array, len(keep), add_generation_prompt, buf, size)
    if n < 0:
        return None
    assert n < size
    return buf.raw[:n].decode()


def chat_apply_jinja(template, messages, add_generation_prompt):
    """A template's source through Jinja2, as its authors meant it."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    render = Jinja2ChatFormatter(template, eos_token="", bos_token="", add_generation_prompt=add_generation_prompt)
    return render(messages=messages).prompt
