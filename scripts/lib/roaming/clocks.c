/* Clocks of a machine that slept: loaded into a program (LD_PRELOAD), it moves on the wall clock and the one that counts suspended time by the
   seconds that stand in the file that CLOCKS names; the monotonic clock stands still meanwhile, as on a machine that sleeps. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *seconds;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CLOCKS");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) seconds = page;
  if (file >= 0) close(file);
  real = dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int outcome = real(clock, time);
  if (outcome == 0 && seconds && (clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME)) time->tv_sec += *seconds;
  return outcome;
}
