// What must be known of a request that changes a name, should its worker die before it is answered: the kernel sends such a request again, and what was
// done already must not be done twice nor be refused because it was done.
#pragma once
#include "session.h"

#define REQUEST_SENT_AGAIN (1ULL << 63) // of a request's number: the kernel sends it once more

void intents_open(void);
void intent_begin(struct fuse_request *request); // sets request->intent, and request->again when it was begun before
void intent_end(const struct fuse_request *request); // answered
void intent_object(const struct fuse_request *request, const struct stat *st); // which object gets another name
void intent_may_change(const struct fuse_request *request); // what is asked for is possible now
bool intent_changed(const struct fuse_request *request);    // it was, and is not any more: it was done
// Of a request that is sent again: whether this is the object whose name changed, and whether this one was made by it.
bool intent_moved(const struct fuse_request *request, const struct stat *st);
bool intent_made(const struct fuse_request *request, int parent, const char *name);
