#include "worker/coll/ucx_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>

static struct ucx_library library;
static struct errbuf library_missing;
static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void *library_find(void *handle, const char *name)
{
    void *symbol = dlsym(handle, name);
    if (symbol == NULL && library_missing.text[0] == '\0')
        err_set(&library_missing, ERR_UNSUPPORTED,
                "libucp.so.0 lacks %s: libucx 1.12 or newer is needed", name);
    return symbol;
}

/* libucm, a part of it, patches mmap, munmap and their like in the whole process, to learn when
 * memory that it registered goes away. It says itself that this is safe only before there are other
 * threads; we load late, and what we hand it stays where it is until the gang ends. It begins with
 * the options that are set first, so we are first, and set them again when it has read the
 * environment. */
static void library_keep_off(ucm_global_config_t *options)
{
    options->enable_events = 0;
    options->mmap_hook_mode = UCM_MMAP_HOOK_NONE;
    options->enable_malloc_hooks = 0;
    options->enable_malloc_reloc = 0;
}

static ucm_global_config_t *library_options(void)
{
    void (*begin)(const ucm_global_config_t *options) = NULL;
    ucm_global_config_t *options = NULL;
    /* Lazily: alone it lacks a function of its friends, for hooks that it is not to install. */
    void *handle = dlopen("libucm.so.0", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    if (handle != NULL) {
        options = dlsym(handle, "ucm_global_opts");
        *(void **)(void *)&begin = dlsym(handle, "ucm_set_global_opts");
    }
    if (options == NULL || begin == NULL)
        return NULL;
    library_keep_off(options);
    begin(options);
    return options;
}

static void library_load(void)
{
    static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    ucm_global_config_t *options = library_options();
    void *handle =
        options == NULL ? NULL : dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == NULL) {
        const char *why = dlerror();
        err_set(&library_missing, ERR_UNSUPPORTED,
                "collectives between hosts need libucx: apt-get install libucx0 (%s)",
                why != NULL ? why : "its libucm.so.0 is unlike the one this was built for");
        return;
    }
    library_keep_off(options);
#define UCX_FIND(name) *(void **)(void *)&library.name = library_find(handle, #name);
    UCX_FUNCTIONS(UCX_FIND)
#undef UCX_FIND
    if (library_missing.text[0] != '\0')
        return;
    /* It takes over signals, to print where a program crashed, and tells of every peer that goes
     * away, on stdout. The first would hide our exit codes; the second is ours to tell. */
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        library.ucs_debug_disable_signal(signals[i]);
    if (getenv("UCX_LOG_LEVEL") == NULL)
        (void)library.ucs_global_opts_set_value("LOG_LEVEL", "fatal");
}

enum err ucx_library_open(const struct ucx_library **ret_library, struct errbuf *eb)
{
    pthread_once(&library_once, library_load);
    if (library_missing.text[0] != '\0')
        return err_set(eb, ERR_UNSUPPORTED, "%s", library_missing.text);
    *ret_library = &library;
    return ERR_OK;
}
