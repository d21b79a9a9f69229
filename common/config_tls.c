#include "common/config_tls.h"

#define TLS(field) offsetof(struct transport_tls, field)

const struct config_key config_tls_keys[] = {
    {.name = "ca_file",
     .type = CONFIG_STRING,
     .offset = TLS(ca_file),
     .required = true,
     .check = config_check_absolute_path,
     .example = "/etc/cloister/ca.pem",
     .help = "PEM file with the authorities that may sign the other side's certificate."},
    {.name = "cert_file",
     .type = CONFIG_STRING,
     .offset = TLS(cert_file),
     .required = true,
     .check = config_check_absolute_path,
     .example = "/etc/cloister/tls.pem",
     .help = "PEM file with our certificate; the other side wants one."},
    {.name = "key_file",
     .type = CONFIG_STRING,
     .offset = TLS(key_file),
     .required = true,
     .check = config_check_absolute_path,
     .example = "/etc/cloister/tls.key",
     .help = "PEM file with the certificate's private key."},
    {0}};
