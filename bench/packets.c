/* Baselines of `air` and `pace`, as short as C makes them.
 *
 *   packets send PORT SECONDS   seven packets a datagram, 32 datagrams a sendmmsg, as fast as it
 *                               goes; prints packets and CPU seconds
 *   packets sink PORT           takes datagrams and drops them, until it is killed
 *   packets pace KBIT SECONDS   sleeps from message to message of seven packets with
 *                               clock_nanosleep; prints lateness in microseconds, one a line
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PACKET 188
#define PER_MESSAGE 7
#define BATCH 32

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int udp(int port, int is_sink)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int s = socket(AF_INET, SOCK_DGRAM, 0), size = 1 << 23;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if ((is_sink ? bind : connect)(s, (struct sockaddr *)&to, sizeof to)) {
        perror("packets");
        exit(1);
    }
    return s;
}

static void transmit(int port, double seconds)
{
    static uint8_t data[BATCH][PACKET * PER_MESSAGE];
    struct iovec pieces[BATCH];
    struct mmsghdr messages[BATCH];
    int s = udp(port, 0);
    uint64_t packets = 0;
    double end = now(CLOCK_MONOTONIC) + seconds;
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){data[i], sizeof data[i]};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    while (now(CLOCK_MONOTONIC) < end) {
        int sent = sendmmsg(s, messages, BATCH, 0);
        if (sent > 0)
            packets += (uint64_t)sent * PER_MESSAGE;
    }
    printf("%llu %.6f\n", (unsigned long long)packets, now(CLOCK_PROCESS_CPUTIME_ID));
}

static void sink(int port)
{
    static uint8_t data[2048];
    int s = udp(port, 1);
    for (;;)
        (void)!recv(s, data, sizeof data, 0);
}

static void pace(double kbit_s, double seconds)
{
    double gap = PER_MESSAGE * PACKET * 8 / (kbit_s * 1000), due = now(CLOCK_MONOTONIC);
    for (double end = due + seconds; due < end; due += gap) {
        struct timespec t = {(time_t)due, (long)((due - (time_t)due) * 1e9)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        printf("%.1f\n", (now(CLOCK_MONOTONIC) - due) * 1e6);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "sink"))
        sink(atoi(argv[2]));
    if (argc != 4)
        return 2;
    if (!strcmp(argv[1], "send"))
        transmit(atoi(argv[2]), atof(argv[3]));
    else
        pace(atof(argv[2]), atof(argv[3]));
    return 0;
}
