import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.AppInfoParser;

/** Prints message sets of the formats 0 and 1, and what Kafka's own reader finds in them: see README.md. */
public class LegacyVectors {
    static final HexFormat HEX = HexFormat.of();

    public static void main(String[] args) {
        System.out.println("# Kafka " + AppInfoParser.getVersion() + ": NAME BYTES OFFSET:TYPE:TIMESTAMP:KEY:VALUE...");
        for (byte magic = 0; magic <= 1; magic++) {
            for (CompressionType codec : new CompressionType[] {
                    CompressionType.NONE, CompressionType.GZIP, CompressionType.SNAPPY, CompressionType.LZ4}) {
                print("v" + magic + "-" + codec.name, set(magic, codec, TimestampType.CREATE_TIME, 100, 3));
                if (magic == 1) {
                    print("v1-" + codec.name + "-append", set(magic, codec, TimestampType.LOG_APPEND_TIME, 100, 3));
                }
                print("v" + magic + "-" + codec.name + "-two", join(
                        set(magic, codec, TimestampType.CREATE_TIME, 0, 2),
                        set(magic, codec, TimestampType.CREATE_TIME, 7, 1)));
                if (codec != CompressionType.NONE) {
                    print("v" + magic + "-" + codec.name + "-large", set(magic, codec, TimestampType.CREATE_TIME, 5, 1200));
                }
                print("v" + magic + "-" + codec.name + "-compacted", compacted(magic, codec));
            }
        }
        print("upgraded", join(
                set((byte) 0, CompressionType.NONE, TimestampType.CREATE_TIME, 0, 2),
                set((byte) 0, CompressionType.LZ4, TimestampType.CREATE_TIME, 2, 2),
                set((byte) 1, CompressionType.GZIP, TimestampType.CREATE_TIME, 4, 2),
                set((byte) 2, CompressionType.NONE, TimestampType.CREATE_TIME, 6, 2)));
    }

    static MemoryRecordsBuilder builder(byte magic, CompressionType codec, TimestampType type, long base) {
        Compression compression = Compression.of(codec).build();
        return new MemoryRecordsBuilder(ByteBuffer.allocate(1 << 20), magic, compression, type, base, 1_700_000_000_999L,
                -1, (short) -1, -1, false, false, -1, 1 << 20);
    }

    static void append(MemoryRecordsBuilder builder, long offset, int i) {
        byte[] key = i % 3 == 0 ? null : ("key-" + i).getBytes(StandardCharsets.UTF_8);
        byte[] value = i % 4 == 1 ? null : ("value-" + i + "-" + "x".repeat(i % 50)).getBytes(StandardCharsets.UTF_8);
        long timestamp = builder.magic() == 0 ? RecordBatch.NO_TIMESTAMP : 1_500_000_000_000L + i;
        builder.appendWithOffset(offset, timestamp, key, value);
    }

    static ByteBuffer set(byte magic, CompressionType codec, TimestampType type, long base, int records) {
        MemoryRecordsBuilder builder = builder(magic, codec, type, base);
        for (int i = 0; i < records; i++) {
            append(builder, base + i, i);
        }
        return builder.build().buffer();
    }

    /** Offsets are missing at the start and in between. */
    static ByteBuffer compacted(byte magic, CompressionType codec) {
        MemoryRecordsBuilder builder = builder(magic, codec, TimestampType.CREATE_TIME, 50);
        for (int i : new int[] {3, 4, 9, 20}) {
            append(builder, 50 + i, i);
        }
        return builder.build().buffer();
    }

    static ByteBuffer join(ByteBuffer... sets) {
        ByteBuffer all = ByteBuffer.allocate(1 << 21);
        for (ByteBuffer set : sets) {
            all.put(set);
        }
        return all.flip();
    }

    static String hex(ByteBuffer bytes) {
        if (bytes == null) {
            return "null";
        }
        byte[] copy = new byte[bytes.remaining()];
        bytes.duplicate().get(copy);
        return HEX.formatHex(copy);
    }

    static void print(String name, ByteBuffer set) {
        StringBuilder line = new StringBuilder(name).append(' ').append(hex(set));
        int count = 0;
        for (RecordBatch batch : MemoryRecords.readableRecords(set).batches()) {
            batch.ensureValid();
            for (org.apache.kafka.common.record.internal.Record record : batch) {
                // Of a large set only some.
                if (count++ % 100 == 0 || !name.endsWith("-large")) {
                    char type = batch.timestampType() == TimestampType.LOG_APPEND_TIME ? 'a' : 'c';
                    line.append(' ').append(record.offset()).append(':').append(type).append(':').append(record.timestamp());
                    line.append(':').append(hex(record.key())).append(':').append(hex(record.value()));
                }
            }
        }
        System.out.println(line);
    }
}
