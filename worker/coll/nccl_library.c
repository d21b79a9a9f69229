#include "worker/coll/nccl_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static struct nccl_library library;
static struct errbuf library_missing;
static pthread_once_t library_once = PTHREAD_ONCE_INIT;

const char *nccl_version_text(int version, char ret_text[NCCL_VERSION_BYTES])
{
    const int thousand = version < 10000 ? 1000 : 10000;
    (void)snprintf(ret_text, NCCL_VERSION_BYTES, "%d.%d.%d", version / thousand,
                   version % thousand / 100, version % 100);
    return ret_text;
}

/* POSIX has dlsym return functions as data pointers; C does not let one cast to the other. */
static void library_find(void *handle, const char *name, void *ret_function)
{
    void *found = dlsym(handle, name);
    _Static_assert(sizeof found == sizeof(void (*)(void)), "pointers of one size");
    memcpy(ret_function, &found, sizeof found);
    if (found == NULL && library_missing.text[0] == '\0')
        err_set(&library_missing, ERR_UNSUPPORTED, "%s lacks %s: NCCL 2.18.1 or newer is needed",
                NCCL_ABI_LIBRARY, name);
}

static void library_load(void)
{
    char text[NCCL_VERSION_BYTES];
    void *handle = dlopen(NCCL_ABI_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == NULL) {
        err_set(&library_missing, ERR_UNSUPPORTED,
                "collectives between GPUs need NCCL: apt-get install libnccl2 (%s)", dlerror());
        return;
    }
#define NCCL_FIND(name, arguments) library_find(handle, #name, &library.abi.name);
    NCCL_ABI_FUNCTIONS(NCCL_FIND)
#undef NCCL_FIND
    library_find(handle, "ncclGetErrorString", &library.abi.ncclGetErrorString);
    library_find(handle, "ncclGetLastError", &library.abi.ncclGetLastError);
    if (library_missing.text[0] != '\0')
        return;
    int result = library.abi.ncclGetVersion(&library.version);
    if (result != NCCL_ABI_SUCCESS)
        err_set(&library_missing, ERR_UNSUPPORTED, "%s: ncclGetVersion: %s", NCCL_ABI_LIBRARY,
                library.abi.ncclGetErrorString(result));
    else if (library.version < NCCL_ABI_VERSION_MIN)
        err_set(&library_missing, ERR_UNSUPPORTED, "%s is NCCL %s; 2.18.1 or newer is needed",
                NCCL_ABI_LIBRARY, nccl_version_text(library.version, text));
}

enum err nccl_library_open(const struct nccl_library **ret_library, struct errbuf *eb)
{
    pthread_once(&library_once, library_load);
    if (library_missing.text[0] != '\0')
        return err_set(eb, ERR_UNSUPPORTED, "%s", library_missing.text);
    *ret_library = &library;
    return ERR_OK;
}
