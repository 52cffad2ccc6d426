/* HDF5 filter plugin for tezip_h5: what h5dump, HDFView, MATLAB, Julia and IDL read stacks with.
 *
 * It decodes only. The decoder is the Python package: chunks go over a socket to one process of
 * it, which is started by the first chunk and serves until this process ends. So there is one
 * decoder, no interpreter inside the host, and nothing to link: HDF5's headers are not needed.
 *
 * The messages between the two are described in tezip_h5/hdf5/pipeline/service.py.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILTER_ID 36471
#define REVERSE 0x0100       /* H5Z_FLAG_REVERSE */
#define MAGIC 0x505a4554u    /* "TEZP" */
#define MOST_REPLY (1u << 31) /* bytes; no chunk of ours decodes to more */
#define MOST_TEXT 65536      /* bytes of a message, or of the list of open files */

/* From HDF5's H5Zpublic.h and H5PLextern.h; this layout has been the same since HDF5 1.8.3. */
typedef struct {
    int version, id;
    unsigned encoder_present, decoder_present;
    const char *name;
    int (*can_apply)(int64_t, int64_t, int64_t);
    int (*set_local)(int64_t, int64_t, int64_t);
    size_t (*filter)(unsigned, size_t, const unsigned *, size_t, size_t *, void **);
} filter_class;

enum { ANSWER_CHUNK = 0, ANSWER_ERROR = 1, ANSWER_NO_MODEL = 2 };

typedef struct { uint32_t magic, values, files, reserved; uint64_t payload; } question;
typedef struct { uint32_t magic, status; uint64_t size; } answer;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int channel = -1;     /* the socket to the decoder */
static pid_t decoder, owner; /* its process, and the one that started it */
static int hopeless;         /* it did not start, and was said */

static void say(const char *text, const char *more)
{
    fprintf(stderr, "tezip: %s%s\n", text, more ? more : "");
}

/* --- the decoder's process ------------------------------------------------------------------ */

/* The interpreter of the environment that this library is installed in. */
static void find_python(char *out, size_t size)
{
    const char *named = getenv("TEZIP_PYTHON");
    Dl_info self;
    if (named && *named) {
        snprintf(out, size, "%s", named);
        return;
    }
    if (dladdr((void *)find_python, &self) && self.dli_fname) {
        char *place = realpath(self.dli_fname, NULL), *end;
        char version[32] = "python3";
        const char *lib = place ? strstr(place, "/lib/python3") : NULL;
        if (lib)
            sscanf(lib, "/lib/%31[^/]", version);
        while (place && (end = strrchr(place, '/'))) {
            *end = 0;
            snprintf(out, size, "%s/bin/%s", place, version);
            if (lib && access(out, X_OK) == 0) {
                free(place);
                return;
            }
        }
        free(place);
    }
    snprintf(out, size, "python3"); /* that of PATH */
}

/* Between fork and exec: only what is safe in a process that had threads. */
static void become_decoder(int end, char *const argv[])
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid(); /* Ctrl-C is for the host; the decoder ends when its socket closes */
    dup2(end, 0);
    dup2(2, 1); /* the host's output is not ours */
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3u, ~0u, 0u) != 0)
#endif
        for (int i = 3; i < 4096; i++) /* among them locks on the host's files */
            close(i);
    execvp(argv[0], argv);
    _exit(127);
}

static void forget_decoder(void)
{
    if (channel >= 0)
        close(channel);
    channel = -1;
}

static int receive(void *to, size_t size)
{
    for (char *at = to; size > 0;) {
        ssize_t got = recv(channel, at, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        at += got;
        size -= (size_t)got;
    }
    return 1;
}

static int deliver(const void *from, size_t size)
{
    for (const char *at = from; size > 0;) {
        ssize_t sent = send(channel, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return 0;
        at += sent;
        size -= (size_t)sent;
    }
    return 1;
}

/* Start the decoder unless it runs; it greets when it is ready. */
static int have_decoder(void)
{
    static const char advice[] = "a Python that has the package (pip install tezip_h5)";
    static char code[] = "import sys; sys.path[:] = [p for p in sys.path if p]\n"
                         "from tezip_h5.hdf5.pipeline.service import main; main()";
    char python[4096];
    char *argv[] = {python, "-c", code, NULL};
    answer hello;
    int ends[2], status = 0;

    if (channel >= 0 && owner == getpid())
        return 1;
    if (hopeless)
        return 0;
    forget_decoder(); /* a forked process must not share its parent's */
    find_python(python, sizeof python);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        say("no socket for the decoder: ", strerror(errno));
        return 0;
    }
    owner = getpid();
    decoder = fork();
    if (decoder == 0)
        become_decoder(ends[1], argv);
    close(ends[1]);
    channel = ends[0];
    if (decoder > 0 && receive(&hello, sizeof hello) && hello.magic == MAGIC)
        return 1;
    forget_decoder();
    if (decoder < 0) {
        say("no process for the decoder: ", strerror(errno));
        return 0;
    }
    hopeless = 1;
    waitpid(decoder, &status, 0); /* fails where the host ignores its children */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        say("this Python cannot be run: ", python);
    else
        say("the decoder does not start; is the Python package tezip_h5 installed for ", python);
    say("set TEZIP_PYTHON to the path of ", advice);
    return 0;
}

/* --- a chunk -------------------------------------------------------------------------------- */

/* Names of the files this process has open, one after the other, each ended by a zero: one of
 * them holds the model. */
static size_t open_files(char *out, size_t size)
{
    size_t used = 0;
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        struct stat about;
        ssize_t length;
        if (used + 4096 > size)
            break;
        length = readlinkat(dirfd(folder), entry->d_name, out + used, 4095);
        if (length <= 0 || out[used] != '/')
            continue;
        out[used + (size_t)length] = 0;
        if (stat(out + used, &about) == 0 && S_ISREG(about.st_mode))
            used += (size_t)length + 1;
    }
    if (folder)
        closedir(folder);
    return used;
}

/* Ask the decoder; returns the status, or -1 if it is gone. `*reply` is ours to free. */
static int ask(size_t count, const unsigned *values, const char *files, size_t files_size,
               const void *payload, size_t size, void **reply, size_t *reply_size)
{
    question q = {MAGIC, (uint32_t)count, (uint32_t)files_size, 0, size};
    answer a;
    *reply = NULL;
    if (!deliver(&q, sizeof q) || !deliver(values, 4 * count) || !deliver(files, files_size) ||
        !deliver(payload, size) || !receive(&a, sizeof a) || a.magic != MAGIC ||
        a.size > MOST_REPLY)
        return -1;
    *reply = malloc(a.size + 1); /* HDF5 frees it as it frees its own */
    *reply_size = a.size;
    if (*reply && receive(*reply, a.size))
        return (int)a.status;
    free(*reply);
    *reply = NULL;
    return -1;
}

static int decode(size_t count, const unsigned *values, const void *payload, size_t size,
                  void **reply, size_t *reply_size)
{
    char *files = NULL;
    size_t files_size = 0;
    int status = -1, left = 2; /* a decoder that was killed is started once more */
    while (left > 0 && have_decoder()) {
        status = ask(count, values, files, files_size, payload, size, reply, reply_size);
        if (status == ANSWER_NO_MODEL && files == NULL && (files = malloc(MOST_TEXT))) {
            files_size = open_files(files, MOST_TEXT);
            free(*reply);
            continue;
        }
        if (status >= 0)
            break;
        left--;
        forget_decoder();
        waitpid(decoder, NULL, 0);
        if (left == 0)
            say("the decoder ended before it answered, twice; this chunk is not read", NULL);
    }
    free(files);
    return status;
}

static size_t filter(unsigned flags, size_t count, const unsigned *values, size_t size,
                     size_t *buffer_size, void **buffer)
{
    void *reply = NULL;
    size_t reply_size = 0;
    int status;
    if (!(flags & REVERSE)) {
        say("this plugin decodes only; write with the Python package tezip_h5", NULL);
        return 0;
    }
    pthread_mutex_lock(&lock);
    status = decode(count, values, *buffer, size, &reply, &reply_size);
    pthread_mutex_unlock(&lock);
    if (status == ANSWER_CHUNK && reply_size > 0) {
        free(*buffer);
        *buffer = reply;
        *buffer_size = reply_size;
        return reply_size;
    }
    if (status >= 0) {
        ((char *)reply)[reply_size] = 0;
        say(reply, NULL);
    }
    free(reply);
    return 0;
}

/* HDF5 unloads its plugins when it closes. */
__attribute__((destructor)) static void end_decoder(void)
{
    int ours = channel >= 0 && owner == getpid();
    forget_decoder();
    if (ours)
        waitpid(decoder, NULL, 0);
}

/* --- what HDF5 looks for -------------------------------------------------------------------- */

static void at_fork(void)
{
    pthread_mutex_init(&lock, NULL); /* the thread that held it is not in the new process */
}

int H5PLget_plugin_type(void)
{
    return 0; /* H5PL_TYPE_FILTER */
}

const void *H5PLget_plugin_info(void)
{
    static const filter_class info = {
        1, FILTER_ID, 0, 1, "tezip: predicted image stacks (decoding only)",
        NULL, NULL, filter,
    };
    static int once;
    if (!once++)
        pthread_atfork(NULL, NULL, at_fork);
    return &info;
}
