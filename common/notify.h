/*
 * notify.h - tells the service manager how we are (sd_notify(3)'s protocol: a datagram to
 * $NOTIFY_SOCKET). Does nothing where there is none. Thread: any.
 */
#ifndef CLOISTER_COMMON_NOTIFY_H
#define CLOISTER_COMMON_NOTIFY_H

void notify_state(const char *state); /* "READY=1", "STOPPING=1", "STATUS=..." */

#endif
