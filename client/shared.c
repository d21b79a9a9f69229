/* The shared library has no code of its own: libcloister's objects are linked in whole. */
#include "client/cloister.h"

_Static_assert(CLOISTER_VERSION_MAJOR == 0, "the soname follows the major version");
