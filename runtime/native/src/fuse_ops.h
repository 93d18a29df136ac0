// The file system that applications see on a primary.
#pragma once
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

extern const struct fuse_lowlevel_ops fuse_operations;
