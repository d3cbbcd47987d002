/* Delays each flush of PostgreSQL's write-ahead log, as storage across a network does.
 *
 * Loaded before the C library. With wal_sync_method = fdatasync, PostgreSQL calls fdatasync
 * for the write-ahead log alone; data files are flushed by fsync, which stays as fast as the
 * disk. The delay is added inside the flush, while the process holds the lock of the log.
 * Commits that arrive meanwhile share the next flush, as on a slow disk.
 *
 * COMPARE_FLUSH_MICROSECONDS holds the delay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static long delay_microseconds;

__attribute__((constructor)) static void prepare(void)
{
    const char *delay = getenv("COMPARE_FLUSH_MICROSECONDS");
    if (!delay || (delay_microseconds = atol(delay)) <= 0)
        abort();
}

/* Signals interrupt a sleep, and PostgreSQL sends many; the end of the sleep stays fixed. */
static void sleep_for_delay(void)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += delay_microseconds / 1000000;
    end.tv_nsec += delay_microseconds % 1000000 * 1000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec += 1;
        end.tv_nsec -= 1000000000;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, 0) == EINTR)
        ;
}

int fdatasync(int file)
{
    static int (*real_fdatasync)(int);
    if (!real_fdatasync)
        real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int result = real_fdatasync(file);
    int error = errno;
    sleep_for_delay();
    errno = error;
    return result;
}
