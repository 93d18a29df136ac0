// The rules of select.h. A place is judged by the path that the kernel knows for a descriptor: one consistent answer, whatever is renamed meanwhile.
#include "select.h"
#include "local.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct expression {
    struct expression *next;
    char *text;
    bool only; // after `!`
    regex_t compiled;
};

struct excluded_path {
    struct excluded_path *next;
    char *text;
    const char *name; // its last component
};

static struct {
    struct expression *expressions;
    struct excluded_path *paths;
    bool has_only;
} selections[DIRECTORY_LIMIT];

// ---- options ----

const char *select_add_path(unsigned directory, const char *path) {
    static const char expected[] = "expected a path relative to the directory, without . and .., on one line";
    char *text = must(strdup(path)), *to = text;
    if (!path_is_inside(path) || strchr(path, '\n')) {
        free(text);
        return expected;
    }
    for (const char *at = path; *at;) { // one slash between components, none at the end
        size_t size = strcspn(at, "/");
        if (size == 1 && *at == '.') {
            free(text);
            return expected;
        }
        if (size && to != text) *to++ = '/';
        memmove(to, at, size);
        to += size;
        at += size + (at[size] == '/');
    }
    *to = 0;
    if (!*text) {
        free(text);
        return expected;
    }
    struct excluded_path *one = must(malloc(sizeof *one));
    const char *slash = strrchr(text, '/');
    *one = (struct excluded_path){selections[directory].paths, text, slash ? slash + 1 : text};
    selections[directory].paths = one;
    return NULL;
}

const char *select_add_name(unsigned directory, const char *expression) {
    static char why[200];
    struct expression *one = must(calloc(1, sizeof *one));
    one->only = *expression == '!';
    one->text = must(strdup(expression));
    int error = strchr(expression, '\n') || !expression[one->only] ? REG_BADPAT : regcomp(&one->compiled, expression + one->only, REG_EXTENDED | REG_NOSUB);
    if (error) {
        char reason[120];
        regerror(error, NULL, reason, sizeof reason);
        snprintf(why, sizeof why, "expected an extended regular expression: %s", reason);
        free(one->text);
        free(one);
        return why;
    }
    one->next = selections[directory].expressions;
    selections[directory].expressions = one;
    selections[directory].has_only |= one->only;
    return NULL;
}

// ---- questions ----

bool select_configured(const struct directory *directory) {
    return selections[directory->index].expressions || selections[directory->index].paths;
}

static bool name_excluded(unsigned directory, const char *name, mode_t type) {
    bool judged = selections[directory].has_only && !S_ISDIR(type) && strncmp(name, TEMPORARY_NAME, sizeof TEMPORARY_NAME - 1) != 0;
    bool wanted = !judged;
    for (const struct expression *one = selections[directory].expressions; one; one = one->next) {
        if (one->only && (wanted || !judged)) continue;
        if (regexec(&one->compiled, name, 0, NULL, 0)) continue;
        if (!one->only) return strncmp(name, TEMPORARY_NAME, sizeof TEMPORARY_NAME - 1) != 0;
        wanted = true;
    }
    return !wanted;
}

// Both are written with single slashes.
static bool path_starts_with(const char *path, const char *start) {
    size_t size = strlen(start);
    return strncmp(path, start, size) == 0 && (!path[size] || path[size] == '/');
}

bool select_excludes(const struct directory *directory, int parent, const char *name, mode_t type) {
    if (!select_configured(directory)) return false;
    if (name_excluded(directory->index, name, type)) return true;
    char above[PATH_MAX];
    bool known = false;
    for (const struct excluded_path *one = selections[directory->index].paths; one; one = one->next) {
        if (strcmp(one->name, name) != 0) continue;
        if (!known && !local_path(directory->root, parent, above)) return false;
        known = true;
        size_t size = strlen(above);
        if (size ? path_starts_with(one->text, above) && one->text[size] == '/' && one->text + size + 1 == one->name : one->text == one->name) return true;
    }
    return false;
}

bool select_excludes_path(const struct directory *directory, const char *path, mode_t type) {
    if (!select_configured(directory)) return false;
    for (const struct excluded_path *one = selections[directory->index].paths; one; one = one->next) {
        if (path_starts_with(path, one->text)) return true;
    }
    char name[NAME_MAX + 1];
    while (*path) {
        size_t size = strcspn(path, "/");
        if (size > NAME_MAX) return false;
        memcpy(name, path, size);
        name[size] = 0;
        path += size;
        while (*path == '/') path++;
        if (size && name_excluded(directory->index, name, *path ? S_IFDIR : type)) return true;
    }
    return false;
}

bool select_excludes_below(const struct directory *directory, int parent, const char *name) {
    if (!selections[directory->index].paths) return false;
    char path[PATH_MAX];
    if (!local_path(directory->root, parent, path)) return false;
    size_t used = strlen(path);
    if (snprintf(path + used, sizeof path - used, "%s%s", used ? "/" : "", name) >= (int)(sizeof path - used)) return false;
    for (const struct excluded_path *one = selections[directory->index].paths; one; one = one->next) {
        if (path_starts_with(one->text, path) && one->text[strlen(path)]) return true;
    }
    return false;
}

// A name of a file of several ones that is replicated. Rare, and slow on a large tree.
static bool has_replicated_name(const struct inode *inode) {
    char *path = inode_path((struct inode *)inode);
    bool some = path != NULL;
    free(path);
    return some;
}

bool select_entry(struct inode *parent, const char *name, mode_t type) {
    return select_configured(parent->directory) && (select_inode(parent) || select_excludes(parent->directory, parent->fd, name, type));
}

bool select_orphan(struct inode *inode) {
    if (!select_configured(inode->directory) || S_ISDIR(inode->type)) return false;
    select_set(inode, SELECTION_EXCLUDED);
    return true;
}

bool select_inode(struct inode *inode) {
    if (!select_configured(inode->directory)) return false;
    unsigned char known = __atomic_load_n(&inode->selection, __ATOMIC_ACQUIRE);
    if (known != SELECTION_UNKNOWN) return known == SELECTION_EXCLUDED;
    char path[PATH_MAX];
    struct stat st;
    if (local_stat(inode->fd, &st) || st.st_nlink == 0 || !local_path(inode->directory->root, inode->fd, path)) return false;
    bool excluded = select_excludes_path(inode->directory, path, inode->type);
    if (excluded && !S_ISDIR(inode->type) && st.st_nlink > 1) excluded = !has_replicated_name(inode);
    unsigned char unknown = SELECTION_UNKNOWN;
    // Whoever moves it to the other side meanwhile knows better.
    __atomic_compare_exchange_n(&inode->selection, &unknown, excluded ? SELECTION_EXCLUDED : SELECTION_REPLICATED, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return __atomic_load_n(&inode->selection, __ATOMIC_ACQUIRE) == SELECTION_EXCLUDED;
}

void select_set(struct inode *inode, enum selection selection) { __atomic_store_n(&inode->selection, (unsigned char)selection, __ATOMIC_RELEASE); }

// ---- the stream ----

static void only_times(struct message *message) {
    *message = (struct message){.frame = {.op = OP_SETATTR, .valid = SET_MTIME, .mtime_s = message->frame.parent_s, .mtime_n = message->frame.parent_n}};
}

bool select_ships(struct message *message, struct inode **object, struct inode **second) {
    struct inode *one = *object, *two = *second;
    if (!one || !select_configured(one->directory)) return true;
    const struct frame *f = &message->frame;
    if (f->op == OP_LINK && select_inode(one) && !select_inode(two)) {
        only_times(message);
        *object = two;
        *second = NULL;
        return true;
    }
    if (select_inode(one) || (two && select_inode(two))) return false;
    if (f->op == OP_MAKE || f->op == OP_UNLINK || f->op == OP_RMDIR) {
        mode_t type = f->op == OP_MAKE ? f->mode : f->op == OP_RMDIR ? S_IFDIR : S_IFREG;
        if (select_excludes(one->directory, one->fd, message->name, type)) only_times(message);
    }
    return true;
}

// ---- what both nodes must agree on ----

void select_text(const struct directory *directory, char *text, size_t size) {
    text[0] = 0;
    size_t used = 0;
    for (const struct excluded_path *one = selections[directory->index].paths; one && used < size; one = one->next)
        used += (size_t)snprintf(text + used, size - used, " without %s", one->text);
    for (const struct expression *one = selections[directory->index].expressions; one && used < size; one = one->next)
        used += (size_t)snprintf(text + used, size - used, " names %s", one->text);
}

bool select_changed(void) {
    char text[16384] = "", before[16384] = "", path[PATH_MAX], temporary[PATH_MAX + 8];
    size_t used = 0;
    for (unsigned i = 0; i < options.directories; i++) {
        char selection[4096];
        select_text(&options.directory[i], selection, sizeof selection);
        if (*selection && used < sizeof text) used += (size_t)snprintf(text + used, sizeof text - used, "%s%s\n", options.directory[i].name, selection);
    }
    snprintf(path, sizeof path, "%s/rfs.selection", options.state_dir);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(path, "re");
    if (file) {
        before[fread(before, 1, sizeof before - 1, file)] = 0;
        fclose(file);
    }
    if (strcmp(before, text) == 0) return false;
    file = fopen(temporary, "we");
    bool written = file && fputs(text, file) >= 0 && fflush(file) == 0 && fsync(fileno(file)) == 0;
    if (file) fclose(file);
    // Not remembered: said to have changed again at the next start, which costs a full comparison and nothing else.
    if (!written || rename(temporary, path)) say("%s: %s", path, strerror(errno));
    return true;
}
