/*
 * config_tls.h - the group `tls` of every program's configuration: a struct transport_tls. Inside
 * it all three keys are required; whether the group must be there is the program's rule.
 */
#ifndef CLOISTER_COMMON_CONFIG_TLS_H
#define CLOISTER_COMMON_CONFIG_TLS_H

#include "common/config.h"
#include "common/transport.h"

extern const struct config_key config_tls_keys[];

#endif
