// The primary's end of the stream: what is shipped in which order, who waits for which answer, and what is held when the peer is lost.
#pragma once
#include "dirty.h"
#include "frame.h"
#include "inode.h"
#include "handshake.h"
#include "session.h"
#include <stdatomic.h>

enum reply_kind { REPLY_STATUS, REPLY_WRITE, REPLY_ENTRY, REPLY_CREATE, REPLY_ATTR };

#define OPERATION_MARKS 6

// One modifying operation of an application, from its request to its reply.
struct operation {
    struct operation *next;
    struct fuse_request request;
    enum reply_kind kind;
    atomic_int waits; // local half, and the peer's or the grant's
    bool refused;     // held, and nobody will ever grant it
    int error;        // of the local half: the application sees no other
    uint64_t seq;
    bool sync;
    int64_t began, since; // microseconds: the request, and its place in the stream
    size_t written;
    struct entry entry;
    struct open_file file;
    bool opened;      // `file` is open for whoever asked
    struct inode *made; // by OP_MAKE: it gets its number with the frame
    uint64_t epoch;   // of the activity log
    bool untracked;   // a part of what it touches is not in the dirty set: it began in mirror ...
    unsigned turn;    // ... or the set was emptied since, by a mirror
    unsigned marks;
    struct touch touch[OPERATION_MARKS];
};

enum answers {
    ANSWER_LOCAL,     // alone, or a resync beside it: the local result is the answer
    ANSWER_HELD,      // the peer was lost out of the mirror: nothing is answered
    ANSWER_SWITCHING, // the peer has everything, its last barrier is on the way: its acknowledgement is awaited already
    ANSWER_PEER,      // mirror
};

struct stream_status {
    const char *peer; // none | resync | mirror | lost
    char address[96], peer_generation[GENERATION_SIZE];
    unsigned held, pending;
    size_t queued; // bytes that are not sent yet
    uint64_t applied, durable;
};

// ---- an operation ----
struct operation *operation_begin(const struct fuse_request *request, enum reply_kind kind); // may wait while a stream is switched on
void operation_touches_inode(struct operation *operation, struct inode *inode, uint32_t flags);
void operation_touches_range(struct operation *operation, struct inode *inode, off_t offset, off_t size); // size 0: to the end of time
void operation_touches_entry(struct operation *operation, struct inode *parent, uint64_t key, uint32_t flags); // an object below `parent`
// A directory whose entries are about to change must be equal on the peer first. With namespace_lock held for writing.
void operation_changes_list(struct operation *operation, struct inode *parent);
void operation_lists(struct inode *directory);
// Before a name changes: an object is named to the peer by a name that the peer still has.
void operation_binds(struct inode *object, struct inode *second);
// The local result, in its place in the stream, under the lock of the object. `named`: namespace_lock is held for writing.
void operation_ship(struct operation *operation, struct message *message, struct inode *object, struct inode *second, bool named);
void operation_end(struct operation *operation, int error); // answers, now or later; frees

// ---- the connection ----
bool stream_connected(void);
// Takes the link over. Resync mode begins with the next operation. Its session names the stream when the connection has to be made again.
int stream_start(struct link *link, const char *host, const char *port, const struct peer *peer);
void stream_lose(const char *reason);
void stream_dismiss(const char *reason); // the peer is told, and lost
void stream_leave(void);           // the same on purpose: nobody is told
void stream_stop(void);            // after one of both: waits for the threads
bool stream_switch(void);          // from here on answers wait for the peer. False: no peer any more
bool stream_enter_mirror(void);    // the barrier was answered. False: no peer any more
bool stream_between_operations(void (*work)(void)); // while none runs. False: a peer is connected or was lost, nothing was done
int stream_alone(void);            // the grant. 0 or EBUSY (in mirror)
void stream_take_over(bool held);  // after the death of a worker: its peer is lost
void stream_refuse(void);          // nobody can grant any more: what would be held from here on is answered with an error
void stream_abandon(void);         // the mount is gone: what is held is answered with an error
enum answers stream_answers(void);
void stream_get_status(struct stream_status *status);
void stream_unbind(struct inode *inode);
bool stream_bind_unnamed(struct inode *inode); // as a file that has no name at the peer yet. False: no peer
bool stream_is_bound(struct inode *inode);
void stream_tentative(bool on); // what this thread names may be missing at the peer

// ---- frames of the resync, and barriers ----
// Binds when needed and appends. Returns the sequence number, 0 when there is no peer or the object has no name.
uint64_t stream_send(struct message *message, struct inode *object, bool named);
int stream_barrier(enum barrier barrier, const char *text); // waits for the answer: 0 or ENOTCONN
bool stream_wait_applied(uint64_t seq, int timeout_ms);     // false: not yet, or no peer
uint64_t stream_sequence(void); // of the last frame
void stream_wait_window(size_t window); // until the peer has acknowledged all but so many bytes, or is lost
