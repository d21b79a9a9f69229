/* Names, ids, versions, and the proof that the public numbers are the wire's. */
#include "client/connection.h"

#include "common/version.h"

#include <stdio.h>
#include <string.h>

#define SAME(public_value, private_value)                                                          \
    _Static_assert((int)(public_value) == (int)(private_value), #public_value)

SAME(CLOISTER_OK, ERR_OK);
SAME(CLOISTER_ERROR_INVALID, ERR_INVALID);
SAME(CLOISTER_ERROR_NOT_FOUND, ERR_NOT_FOUND);
SAME(CLOISTER_ERROR_CONFLICT, ERR_CONFLICT);
SAME(CLOISTER_ERROR_REFUSED, ERR_REFUSED);
SAME(CLOISTER_ERROR_TOO_LARGE, ERR_TOO_LARGE);
SAME(CLOISTER_ERROR_BUSY, ERR_BUSY);
SAME(CLOISTER_ERROR_UNAVAILABLE, ERR_UNAVAILABLE);
SAME(CLOISTER_ERROR_TIMEOUT, ERR_TIMEOUT);
SAME(CLOISTER_ERROR_CANCELLED, ERR_CANCELLED);
SAME(CLOISTER_ERROR_IO, ERR_IO);
SAME(CLOISTER_ERROR_NO_SPACE, ERR_NO_SPACE);
SAME(CLOISTER_ERROR_NO_MEMORY, ERR_NO_MEMORY);
SAME(CLOISTER_ERROR_CORRUPT, ERR_CORRUPT);
SAME(CLOISTER_ERROR_UNSUPPORTED, ERR_UNSUPPORTED);
SAME(CLOISTER_ERROR_STALE, ERR_STALE);
SAME(CLOISTER_ERROR_INTERNAL, ERR_INTERNAL);
SAME(CLOISTER_ERROR_FORKED, ERR_FORKED);
SAME(CLOISTER_ERROR_LOST, ERR_LOST);
SAME(CLOISTER_GPU_KNOWN_PROCESSES, WIRE_GPU_KNOWN_PROCESSES);
SAME(CLOISTER_GPU_KNOWN_OWN_BYTES, WIRE_GPU_KNOWN_OWN_BYTES);
SAME(CLOISTER_GPU_KNOWN_UTILIZATION, WIRE_GPU_KNOWN_UTILIZATION);
SAME(CLOISTER_GPU_KNOWN_POWER, WIRE_GPU_KNOWN_POWER);
SAME(CLOISTER_GPU_KNOWN_ENERGY, WIRE_GPU_KNOWN_ENERGY);
SAME(CLOISTER_GPU_KNOWN_TEMPERATURE, WIRE_GPU_KNOWN_TEMPERATURE);
SAME(CLOISTER_GPU_KNOWN_ECC, WIRE_GPU_KNOWN_ECC);
SAME(CLOISTER_STATE_QUEUED, WIRE_JOB_STATE_QUEUED);
SAME(CLOISTER_STATE_LEASED, WIRE_JOB_STATE_LEASED);
SAME(CLOISTER_STATE_RUNNING, WIRE_JOB_STATE_RUNNING);
SAME(CLOISTER_STATE_DONE, WIRE_JOB_STATE_DONE);
SAME(CLOISTER_STATE_FAILED, WIRE_JOB_STATE_FAILED);
SAME(CLOISTER_STATE_CANCELLED, WIRE_JOB_STATE_CANCELLED);
SAME(CLOISTER_STATE_REJECTED, WIRE_JOB_STATE_REJECTED);
SAME(CLOISTER_STATE_EXPIRED, WIRE_JOB_STATE_EXPIRED);
SAME(CLOISTER_CLASS_INTERACTIVE, WIRE_JOB_CLASS_INTERACTIVE);
SAME(CLOISTER_CLASS_STANDARD, WIRE_JOB_CLASS_STANDARD);
SAME(CLOISTER_CLASS_BATCH, WIRE_JOB_CLASS_BATCH);
SAME(CLOISTER_FINISH_NONE, WIRE_FINISH_UNSPECIFIED);
SAME(CLOISTER_FINISH_STOP, WIRE_FINISH_STOP);
SAME(CLOISTER_FINISH_LENGTH, WIRE_FINISH_LENGTH);
SAME(CLOISTER_FINISH_CANCELLED, WIRE_FINISH_CANCELLED);
SAME(CLOISTER_FINISH_ERROR, WIRE_FINISH_ERROR);
SAME(CLOISTER_ID_BYTES, ID_TEXT_BYTES);
SAME(CLOISTER_SHORT_ID_BYTES, ID_SHORT_TEXT_BYTES);

const char *cloister_error_name(enum cloister_error code)
{
    return err_name((enum err)code);
}

static char library_version[128];

static void library_version_write(void)
{
    snprintf(library_version, sizeof library_version, "%s (%s)", cloister_version,
             cloister_revision);
}

const char *cloister_library_version(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, library_version_write);
    return library_version;
}

const char *cloister_state_name(enum cloister_state state)
{
    return wire_job_state_name((enum wire_job_state)state);
}

const char *cloister_class_name(enum cloister_class job_class)
{
    return wire_job_class_name((enum wire_job_class)job_class);
}

const char *cloister_finish_name(enum cloister_finish finish)
{
    return finish == CLOISTER_FINISH_NONE ? "none" : wire_finish_name((enum wire_finish)finish);
}

bool cloister_state_parse(const char *name, enum cloister_state *ret_state)
{
    enum wire_job_state state;
    if (!wire_job_state_parse(name, &state))
        return false;
    *ret_state = (enum cloister_state)state;
    return true;
}

bool cloister_class_parse(const char *name, enum cloister_class *ret_class)
{
    enum wire_job_class job_class;
    if (!wire_job_class_parse(name, &job_class))
        return false;
    *ret_class = (enum cloister_class)job_class;
    return true;
}

void cloister_id_new(char ret_id[CLOISTER_ID_BYTES])
{
    struct id id = id_new();
    id_format(&id, ret_id);
}

void cloister_id_short(const char *id, char ret_short[CLOISTER_SHORT_ID_BYTES])
{
    size_t size = strlen(id), digits = CLOISTER_SHORT_ID_BYTES - 1;
    snprintf(ret_short, CLOISTER_SHORT_ID_BYTES, "%s", size > digits ? id + size - digits : id);
}

bool cloister_id_derive(const char *base, const void *bytes, size_t size,
                        char ret_id[CLOISTER_ID_BYTES])
{
    struct id id;
    if (!id_parse(base, &id))
        return false;
    uint8_t digest[SHA256_BYTES];
    struct sha256_stream *s = sha256_new();
    sha256_update(s, id.bytes, sizeof id.bytes);
    sha256_update(s, bytes, size);
    sha256_finish(s, digest);
    /* RFC 9562: the time stays, the rest is the digest's, the version says custom (8). */
    memcpy(id.bytes + 6, digest, sizeof id.bytes - 6);
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0F) | 0x80);
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3F) | 0x80);
    id_format(&id, ret_id);
    return true;
}

enum err argument_id(const char *text, struct id *ret_id, struct cloister_problem *problem)
{
    if (!text || !id_parse(text, ret_id))
        return problem_set(problem, ERR_INVALID, "\"%.40s\" is not a job id (32 hex digits)",
                           text ? text : "");
    return ERR_OK;
}
