// From the bytes of a request to the function of its operation.
#pragma once
#include "session.h"

void dispatch(struct fuse_request *request, const unsigned char *bytes, size_t size);
