/* version.h - what was built: set by cmake/WriteVersion.cmake at every build. */
#ifndef CLOISTER_COMMON_VERSION_H
#define CLOISTER_COMMON_VERSION_H

extern const char cloister_version[];  /* "0.1.0" */
extern const char cloister_revision[]; /* git revision, "-dirty" behind it where it applies */

#endif
