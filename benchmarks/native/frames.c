// What a frame costs whoever receives it: datagrams of many clients are written to a virtual wire, whose other end works in the same call.
//
//   frames INTERFACE SOURCE_MAC TARGET_MAC ADDRESS PORT BURSTS
//       BURSTS of 64 UDP datagrams over IPv4 to ADDRESS:PORT, each from another client; prints nanoseconds per frame: the burst that a tenth of all
//       do not exceed, and the median
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <linux/if_packet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BURST 64
#define HEAD (14 + 20 + 8)
#define MOST 100000

static uint8_t frame[BURST][HEAD + 18];
static double cost[MOST];

static void fail(const char *what) {
    fprintf(stderr, "frames: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void mac(uint8_t *to, const char *text) {
    unsigned part[6];
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", part, part + 1, part + 2, part + 3, part + 4, part + 5) != 6) {
        errno = EINVAL;
        fail(text);
    }
    for (int i = 0; i < 6; i++)
        to[i] = (uint8_t)part[i];
}

static void put16(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static void checksum(uint8_t *ip) {
    uint32_t sum = 0;
    put16(ip + 10, 0);
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    put16(ip + 10, ~sum & 0xffff);
}

static int by_cost(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int count, char **word) {
    if (count != 7) {
        fprintf(stderr, "usage: frames INTERFACE SOURCE_MAC TARGET_MAC ADDRESS PORT BURSTS\n");
        return 2;
    }
    long bursts = strtol(word[6], NULL, 10);
    struct in_addr address;
    if (bursts < 1 || bursts > MOST || inet_pton(AF_INET, word[4], &address) != 1) {
        errno = EINVAL;
        fail("ADDRESS or BURSTS");
    }
    int wire = socket(AF_PACKET, SOCK_RAW, 0), one = 1;
    struct sockaddr_ll place = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(word[1]), .sll_halen = 6};
    if (wire < 0 || bind(wire, (struct sockaddr *)&place, sizeof place) < 0)
        fail(word[1]);
    if (setsockopt(wire, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) < 0)
        fail("PACKET_QDISC_BYPASS");

    struct mmsghdr message[BURST];
    struct iovec part[BURST];
    memset(message, 0, sizeof message);
    for (int i = 0; i < BURST; i++) {
        uint8_t *ip = frame[i] + 14, *udp = ip + 20;
        mac(frame[i], word[3]);
        mac(frame[i] + 6, word[2]);
        put16(frame[i] + 12, 0x0800);
        ip[0] = 0x45;
        put16(ip + 2, sizeof frame[i] - 14);
        ip[8] = 64;
        ip[9] = 17;
        memcpy(ip + 16, &address, 4);
        put16(udp + 2, (uint32_t)strtoul(word[5], NULL, 10));
        put16(udp + 4, sizeof frame[i] - 34);
        part[i] = (struct iovec){.iov_base = frame[i], .iov_len = sizeof frame[i]};
        message[i].msg_hdr = (struct msghdr){.msg_iov = &part[i], .msg_iovlen = 1};
    }
    uint32_t client = 0;
    for (long burst = 0; burst < bursts; burst++) {
        for (int i = 0; i < BURST; i++, client++) {
            uint8_t *ip = frame[i] + 14;
            uint32_t source = htonl(0x0a800000u + client % 20000), port = 1024 + client / 20000 % 50000;
            memcpy(ip + 12, &source, 4);
            put16(ip + 20, port);
            checksum(ip);
        }
        double begun = now();
        for (int sent = 0; sent < BURST;) {
            int done = sendmmsg(wire, message + sent, (unsigned)(BURST - sent), 0);
            if (done < 0 && errno != ENOBUFS && errno != EAGAIN)
                fail("sendmmsg");
            if (done > 0)
                sent += done;
        }
        cost[burst] = (now() - begun) / BURST;
    }
    qsort(cost, (size_t)bursts, sizeof *cost, by_cost);
    printf("{\"p10\": %.1f, \"p50\": %.1f}\n", cost[bursts / 10], cost[bursts / 2]);
    return 0;
}
