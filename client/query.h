/*
 * query.h - what the questions of query.c and plan.c are asked with. Internal to client/.
 * Thread: as cloister.h says of the struct cloister.
 */
#ifndef CLOISTER_CLIENT_QUERY_H
#define CLOISTER_CLIENT_QUERY_H

#include "client/connection.h"

/* The reply lies in the new result, as will what is made of it. */
enum err query_call(struct cloister *c, struct wire_request *request,
                    struct cloister_result **ret_result, struct wire_reply *ret_reply,
                    struct cloister_problem *problem);
/* Room in the result; NULL where *err is one already, or now is. */
void *query_rows(struct cloister_result *result, size_t count, size_t bytes, enum err *err,
                 struct cloister_problem *problem);
struct cloister_model query_model(const struct wire_model_info *from);

#endif
