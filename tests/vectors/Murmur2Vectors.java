import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.UUID;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.common.utils.Utils;

/** Prints murmur2.txt: keys, Kafka's hash of them, and the partition its Java producer picks. See README.md. */
public class Murmur2Vectors {
    static final int[] PARTITIONS = {1, 2, 3, 7, 12, 100};

    public static void main(String[] args) {
        Random random = new Random(20240229); // fixed: the file is the same each time
        List<byte[]> keys = new ArrayList<>();
        for (int length = 0; length <= 40; length++) {
            byte[] rising = new byte[length], high = new byte[length], zero = new byte[length], noise = new byte[length];
            for (int i = 0; i < length; i++) {
                rising[i] = (byte) i;
                high[i] = (byte) (0xff - i); // all above 0x7f: Java's bytes are signed
            }
            random.nextBytes(noise);
            keys.addAll(length == 0 ? List.of(zero) : List.of(rising, high, zero, noise));
        }
        for (int i = 0; i < 100; i++) keys.add(utf8("order-" + i));
        for (int i = 0; i < 20; i++) keys.add(utf8("product-" + random.nextInt(1_000_000)));
        for (int i = 0; i < 20; i++) keys.add(utf8(new UUID(random.nextLong(), random.nextLong()).toString()));
        for (String s : List.of("a", "user@example.com", "订单-1", "用户-42", "заказ", "注文", "café", "🐼", "🦊🐼", "ñandú",
                "naïve", "Ω", "\u0000", "\u00ff", "\uffff", " ", "\n", "{\"id\":1}", "0", "-1", "2147483647"))
            keys.add(utf8(s));
        for (int length : new int[] {64, 127, 128, 255, 256, 257, 1000, 1023}) {
            byte[] noise = new byte[length];
            random.nextBytes(noise);
            keys.add(noise);
        }

        System.out.println("# Made by tests/vectors/Murmur2Vectors.java with kafka-clients " + AppInfoParser.getVersion() + ":");
        System.out.println("#   scripts/kafka-local.sh tool tests/vectors/Murmur2Vectors.java > tests/vectors/murmur2.txt");
        StringBuilder columns = new StringBuilder("# key in hex (- is the empty key), Utils.murmur2(key), then Utils.toPositive(hash) % n for n =");
        for (int n : PARTITIONS) columns.append(' ').append(n);
        System.out.println(columns);
        for (byte[] key : keys) {
            int hash = Utils.murmur2(key);
            StringBuilder line = new StringBuilder(key.length == 0 ? "-" : HexFormat.of().formatHex(key)).append(' ').append(hash);
            for (int n : PARTITIONS) line.append(' ').append(Utils.toPositive(hash) % n);
            System.out.println(line);
        }
    }

    static byte[] utf8(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }
}
