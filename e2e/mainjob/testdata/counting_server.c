/* A Modbus server on libmodbus whose registers count the polls: every read of input registers
 * answers with the number of reads of that unit so far, in all registers. A reading that is missing
 * at the other end is a gap in the count, so loss shows exactly.
 *
 * Usage: counting_server tcp PORT
 *        counting_server rtu DEVICE BAUD UNIT
 * Unit 9 on TCP never answers: the dead device among living ones. */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

static uint32_t polls[256];

static void answer(modbus_t *ctx, modbus_mapping_t *map, const uint8_t *query, int length)
{
	int header = modbus_get_header_length(ctx);
	int unit = query[header - 1];
	if (unit == 9)
		return;
	if (query[header] == 0x04) {
		uint32_t n = ++polls[unit];
		/* 32 bits, high word first, again and again. */
		for (int i = 0; i + 1 < map->nb_input_registers; i += 2) {
			map->tab_input_registers[i] = n >> 16;
			map->tab_input_registers[i + 1] = n & 0xffff;
		}
	}
	modbus_reply(ctx, query, length, map);
}

static int serve_tcp(const char *port, modbus_mapping_t *map)
{
	modbus_t *ctx = modbus_new_tcp("127.0.0.1", atoi(port));
	int listener = modbus_tcp_listen(ctx, 8);
	if (listener < 0) {
		perror("listen");
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	fd_set all;
	int top = listener;
	FD_ZERO(&all);
	FD_SET(listener, &all);
	for (;;) {
		fd_set ready = all;
		if (select(top + 1, &ready, NULL, NULL, NULL) < 0)
			return 1;
		for (int fd = 0; fd <= top; fd++) {
			if (!FD_ISSET(fd, &ready))
				continue;
			if (fd == listener) {
				int client = modbus_tcp_accept(ctx, &listener);
				if (client >= 0) {
					FD_SET(client, &all);
					if (client > top)
						top = client;
				}
				continue;
			}
			uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
			modbus_set_socket(ctx, fd);
			int length = modbus_receive(ctx, query);
			if (length > 0)
				answer(ctx, map, query, length);
			else if (length < 0) {
				close(fd);
				FD_CLR(fd, &all);
			}
		}
	}
}

static int serve_rtu(const char *device, int baud, int unit, modbus_mapping_t *map)
{
	modbus_t *ctx = modbus_new_rtu(device, baud, 'N', 8, 1);
	modbus_set_slave(ctx, unit);
	if (modbus_connect(ctx) < 0) {
		perror("connect");
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
		int length = modbus_receive(ctx, query);
		if (length > 0)
			answer(ctx, map, query, length);
		else if (length < 0 && errno != ETIMEDOUT && errno != EMBBADCRC)
			return 1;
	}
}

int main(int argc, char **argv)
{
	modbus_mapping_t *map = modbus_mapping_new(64, 64, 256, 256);
	if (argc == 3 && strcmp(argv[1], "tcp") == 0)
		return serve_tcp(argv[2], map);
	if (argc == 5 && strcmp(argv[1], "rtu") == 0)
		return serve_rtu(argv[2], atoi(argv[3]), atoi(argv[4]), map);
	fprintf(stderr, "usage: counting_server tcp PORT | rtu DEVICE BAUD UNIT\n");
	return 64;
}
