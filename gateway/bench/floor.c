/* The floor: what the kernel alone takes to send the same bytes to the same viewers.
 *
 *     floor PORT INTERVAL_US HEAD_BYTES FILE
 *
 * FILE holds the head of the answer (HEAD_BYTES), then the writes, each behind its size as a 32-bit integer
 * of this machine with the highest bit set where a GOP begins. Every connection that has asked gets the head,
 * and from the next GOP on one send() per write; there is no queue: what the kernel refuses is lost. Several
 * processes may share the port. Ends by signal, or with its parent.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_VIEWERS = 65536, MAX_WRITES = 65536, EVENTS = 64 };
#define GOP_BEGINS 0x80000000u
/* As Custos' own viewer.send_buffer_bytes. */
#define SEND_BUFFER 131072

enum state { FREE, CONNECTED, WAITING, PLAYING };

static unsigned char state[MAX_VIEWERS];
static int viewers[MAX_VIEWERS], viewer_count;
static const char *data[MAX_WRITES];
static uint32_t size[MAX_WRITES];
static int begins[MAX_WRITES], write_count;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void load(const char *path, size_t head_bytes, const char **head)
{
	struct stat file;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &file) < 0)
		die(path);
	const char *start = mmap(NULL, file.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (start == MAP_FAILED)
		die("mmap");
	const char *end = start + file.st_size;
	*head = start;
	for (const char *at = start + head_bytes; at + 4 <= end && write_count < MAX_WRITES; write_count++) {
		uint32_t word;
		memcpy(&word, at, 4);
		size[write_count] = word & ~GOP_BEGINS;
		begins[write_count] = (word & GOP_BEGINS) != 0;
		data[write_count] = at + 4;
		at += 4 + size[write_count];
	}
	close(fd);
}

static int listen_on(int port)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
		die("listen");
	return fd;
}

static void accept_one(int server, int epoll)
{
	int one = 1, bytes = SEND_BUFFER, fd = accept4(server, NULL, NULL, SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (fd >= MAX_VIEWERS) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	state[fd] = CONNECTED;
	viewers[viewer_count++] = fd;
}

static void leave(int fd)
{
	state[fd] = FREE;
	for (int i = 0; i < viewer_count; i++)
		if (viewers[i] == fd)
			viewers[i--] = viewers[--viewer_count];
	close(fd);
}

/* The first bytes of a request are taken for all of it. */
static void receive(int fd, const char *head, size_t head_bytes)
{
	char request[4096];
	ssize_t got = recv(fd, request, sizeof request, 0);
	if (got == 0 || (got < 0 && errno != EAGAIN)) {
		leave(fd);
	} else if (got > 0 && state[fd] == CONNECTED) {
		send(fd, head, head_bytes, MSG_NOSIGNAL);
		state[fd] = WAITING;
	}
}

static void send_to_all(int number)
{
	for (int i = 0; i < viewer_count; i++) {
		int fd = viewers[i];
		if (state[fd] == WAITING && begins[number])
			state[fd] = PLAYING;
		if (state[fd] == PLAYING)
			send(fd, data[number], size[number], MSG_NOSIGNAL);
	}
}

int main(int count, char **arguments)
{
	if (count != 5)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	const char *head;
	size_t head_bytes = strtoul(arguments[3], NULL, 10);
	int64_t interval_us = strtoll(arguments[2], NULL, 10);
	load(arguments[4], head_bytes, &head);
	if (!write_count || interval_us <= 0)
		return 2;
	int server = listen_on(atoi(arguments[1])), epoll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = server}, events[EVENTS];
	epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event);
	puts("ready");
	fflush(stdout);
	int64_t due = now_us() + interval_us;
	for (int number = 0;; number = (number + 1) % write_count, due += interval_us) {
		for (int64_t left; (left = due - now_us()) > 0;) {
			int got = epoll_wait(epoll, events, EVENTS, (int)((left + 999) / 1000));
			for (int i = 0; i < got; i++)
				if (events[i].data.fd == server)
					accept_one(server, epoll);
				else
					receive(events[i].data.fd, head, head_bytes);
		}
		send_to_all(number);
	}
}
