/* Notes, before main, whether stdout is closed. Rust's runtime opens /dev/null in its place before any code
 * of ours runs, and everything written there would be lost with exit code 0. See stdio.rs. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

__attribute__((constructor)) static void note_closed_stdout(void) {
    if (fcntl(1, F_GETFD) == -1 && errno == EBADF)
        setenv("SPICE_PIPES_STDOUT_CLOSED", "1", 1);
    else
        unsetenv("SPICE_PIPES_STDOUT_CLOSED");
}
