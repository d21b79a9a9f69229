/*
 * checkpoint_file.h - the second place: a small file outside the store that holds the newest
 * signed note and is only ever replaced whole.
 *
 * Thread: one owner.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_CHECKPOINT_FILE_H
#define CLOISTER_COORDINATOR_LEDGER_CHECKPOINT_FILE_H

#include "common/err.h"
#include "coordinator/ledger/note.h"

/* ERR_NOT_FOUND where there is none; ERR_CORRUPT where it is no text or too long. */
enum err checkpoint_file_read(const char *path, char ret_text[NOTE_TEXT_BYTES_MAX],
                              struct errbuf *eb);
/* Writes `path`.new, syncs it, renames it over `path` and syncs the directory. On an error the old
 * file may stand or the new one, never a part of one. */
enum err checkpoint_file_replace(const char *path, const char *text, struct errbuf *eb);

#endif
