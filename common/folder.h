/*
 * folder.h - where a program keeps its files, and making that place. Thread: any.
 */
#ifndef CLOISTER_COMMON_FOLDER_H
#define CLOISTER_COMMON_FOLDER_H

#include "common/err.h"

#include <stddef.h>

/* Makes a folder and those above it that are missing, the new ones for the owner alone. */
enum err folder_make(const char *path, struct errbuf *eb);
/* The same for the folders above a file. */
enum err folder_make_above(const char *path, struct errbuf *eb);

/* Where a program keeps its files when nobody says so. */
struct folder_default {
    const char *of_root;  /* "/var/lib/cloister" */
    const char *variable; /* "XDG_DATA_HOME" */
    const char *in_home;  /* ".local/share": what stands for it below $HOME */
    const char *name;     /* below either: "cloister" */
    const char *key;      /* of the configuration, for the message */
};

/* $STATE_DIRECTORY (systemd's), of_root for root, $XDG.../NAME, else $HOME/IN_HOME/NAME. Only
 * absolute values count. ERR_INVALID where none is known. */
enum err folder_default(const struct folder_default *d, char *ret_path, size_t size,
                        struct errbuf *eb);

#endif
