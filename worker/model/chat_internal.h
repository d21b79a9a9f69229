/*
 * chat_internal.h - what chat.c recognises and chat_render.c renders. Private to these two.
 */
#ifndef CLOISTER_WORKER_MODEL_CHAT_INTERNAL_H
#define CLOISTER_WORKER_MODEL_CHAT_INTERNAL_H

#include "worker/model/chat.h"

enum chat_family {
    CHAT_FAMILY_CHATML,
    CHAT_FAMILY_LLAMA3,
    CHAT_FAMILY_GEMMA,
    CHAT_FAMILY_MISTRAL,    /* v1, v3: the system message is part of a user's */
    CHAT_FAMILY_MISTRAL_V7, /* it has a place of its own */
};

enum chat_system {
    CHAT_SYSTEM_ANYWHERE, /* a message like any other */
    CHAT_SYSTEM_FIRST,    /* put before the first message's text */
    CHAT_SYSTEM_LAST,     /* put before the last message's text, where that is the user's */
    CHAT_SYSTEM_NOWHERE,
};

struct chat_template {
    const char *name;
    enum chat_family family;
    enum chat_system system;
    bool bos;       /* the prompt begins with BOS */
    bool alternate; /* user and assistant take turns, or it is an error */
    bool trim;      /* white space around contents is taken away (Mistral: the assistant's) */
    /* Mistral's spaces: before [INST] and [/INST], after [INST] and before the assistant's text. */
    const char *outer;
    const char *inner;
    char *system_default; /* ChatML: for conversations that do not begin with a system message */
    char *date;           /* Llama 3.1: "26 Jul 2024" */
    char *eos;            /* Mistral: the text of EOS */
};

#endif
