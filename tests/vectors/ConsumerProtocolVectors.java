import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.consumer.internals.AbstractPartitionAssignor;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.utils.AppInfoParser;

/** Prints consumer-protocol.txt: metadata of group members, and the assignments of Java. See README.md. */
public class ConsumerProtocolVectors {
    static final Random RANDOM = new Random(20240301); // fixed: the file is the same each time

    public static void main(String[] args) {
        System.out.println("# Made by tests/vectors/ConsumerProtocolVectors.java with kafka-clients " + AppInfoParser.getVersion() + ":");
        System.out.println("#   scripts/kafka-local.sh tool tests/vectors/ConsumerProtocolVectors.java > tests/vectors/consumer-protocol.txt");
        System.out.println("# subscription VERSION TOPICS USERDATA OWNED GENERATION RACK BYTES");
        for (short version = 0; version <= 3; version++) {
            subscription(version, List.of("a"), null, List.of(), -1, null);
            subscription(version, List.of("orders", "products"), "0102", partitions("orders/0,orders/2"), 7, "eu-1");
            subscription(version, List.of("a", "b", "ü"), "", partitions("a/5,ü/1"), 2147483647, null);
        }
        System.out.println("# assignment VERSION PARTITIONS BYTES");
        for (short version = 0; version <= 3; version++)
            for (String list : List.of("-", "orders/0", "orders/1,orders/3,orders/11", "ü/0"))
                row("assignment", version, list, hex(ConsumerProtocol.serializeAssignment(new Assignment(partitions(list)), version)));
        System.out.println("# sticky PARTITIONS GENERATION USERDATA, cooperative-sticky GENERATION USERDATA");
        for (String list : List.of("orders/0", "orders/1,orders/3", "ü/9")) {
            StickyAssignor sticky = new StickyAssignor();
            CooperativeStickyAssignor cooperative = new CooperativeStickyAssignor();
            int generation = RANDOM.nextInt(1000);
            ConsumerGroupMetadata metadata = new ConsumerGroupMetadata("g", generation, "m", Optional.empty());
            sticky.onAssignment(new Assignment(partitions(list)), metadata);
            cooperative.onAssignment(new Assignment(partitions(list)), metadata);
            row("sticky", list, generation, hex(sticky.subscriptionUserData(Set.of("orders"))));
            row("cooperative-sticky", generation, hex(cooperative.subscriptionUserData(Set.of("orders"))));
        }
        row("cooperative-sticky", -1, hex(new CooperativeStickyAssignor().subscriptionUserData(Set.of("orders"))));
        System.out.println("# assign ASSIGNOR MEMBERS(id:instance:rack:topics) TOPICS(racks of each partition) RESULT");
        for (int i = 0; i < 120; i++) assign(i % 4 == 3 ? new RoundRobinAssignor() : new RangeAssignor(), i % 2 == 0);
    }

    static void subscription(short version, List<String> topics, String data, List<TopicPartition> owned, int generation, String rack) {
        ByteBuffer userData = data == null ? null : ByteBuffer.wrap(HexFormat.of().parseHex(data));
        Subscription s = new Subscription(topics, userData, owned, generation, Optional.ofNullable(rack));
        row("subscription", version, String.join(",", topics), data == null ? "null" : data.isEmpty() ? "-" : data,
                owned.isEmpty() ? "-" : owned.stream().map(p -> p.topic() + "/" + p.partition()).collect(Collectors.joining(",")),
                generation, rack == null ? "-" : rack, hex(ConsumerProtocol.serializeSubscription(s, version)));
    }

    static void assign(AbstractPartitionAssignor assignor, boolean racks) {
        int count = 1 + RANDOM.nextInt(5);
        List<String> names = new ArrayList<>();
        for (int t = 0; t < 1 + RANDOM.nextInt(4); t++) names.add("t" + t);
        boolean same = RANDOM.nextBoolean();
        Map<String, Subscription> members = new TreeMap<>();
        StringBuilder who = new StringBuilder();
        for (int m = 0; m < count; m++) {
            String id = "m" + (char) ('a' + RANDOM.nextInt(26)) + m;
            String instance = RANDOM.nextInt(4) == 0 ? "i" + RANDOM.nextInt(9) + m : null;
            String rack = racks && RANDOM.nextInt(5) > 0 ? "r" + RANDOM.nextInt(3) : null;
            List<String> topics = names.stream().filter(n -> same || RANDOM.nextInt(3) > 0).collect(Collectors.toList());
            Subscription s = new Subscription(topics, null, Collections.emptyList(), -1, Optional.ofNullable(rack));
            s.setGroupInstanceId(Optional.ofNullable(instance));
            members.put(id, s);
            who.append(m > 0 ? ";" : "").append(id).append(':').append(instance == null ? "" : instance).append(':')
                    .append(rack == null ? "" : rack).append(':').append(String.join("+", topics));
        }
        Map<String, List<PartitionInfo>> topics = new TreeMap<>();
        StringBuilder what = new StringBuilder();
        int partitions = 1 + RANDOM.nextInt(7);
        for (String name : names) {
            if (RANDOM.nextBoolean()) partitions = 1 + RANDOM.nextInt(7);
            List<PartitionInfo> infos = new ArrayList<>();
            List<String> shown = new ArrayList<>();
            for (int p = 0; p < partitions; p++) {
                TreeSet<String> on = new TreeSet<>();
                for (int r = 0; racks && r < 1 + RANDOM.nextInt(2); r++) on.add("r" + RANDOM.nextInt(3));
                List<Node> nodes = on.stream().map(r -> new Node(1, "h", 1, r)).collect(Collectors.toList());
                if (nodes.isEmpty()) nodes.add(new Node(1, "h", 1));
                Node[] replicas = nodes.toArray(new Node[0]);
                infos.add(new PartitionInfo(name, p, nodes.get(0), replicas, replicas));
                shown.add(String.join("+", on));
            }
            topics.put(name, infos);
            what.append(what.length() > 0 ? ";" : "").append(name).append('=').append(String.join("/", shown)).append('/');
        }
        Map<String, List<TopicPartition>> result = new TreeMap<>(assignor.assignPartitions(topics, members));
        row("assign", assignor.name(), who, what, result.entrySet().stream()
                .map(e -> e.getKey() + "=" + e.getValue().stream().map(TopicPartition::toString).sorted().collect(Collectors.joining(",")))
                .collect(Collectors.joining(";")));
    }

    static List<TopicPartition> partitions(String list) {
        List<TopicPartition> all = new ArrayList<>();
        for (String p : list.equals("-") ? new String[0] : list.split(",")) {
            int slash = p.indexOf('/');
            all.add(new TopicPartition(p.substring(0, slash), Integer.parseInt(p.substring(slash + 1))));
        }
        return all;
    }

    static String hex(ByteBuffer bytes) {
        byte[] all = new byte[bytes.remaining()];
        bytes.get(all);
        return HexFormat.of().formatHex(all);
    }

    static void row(Object... cells) {
        StringBuilder line = new StringBuilder();
        for (Object cell : cells) line.append(line.length() > 0 ? " " : "").append(cell);
        System.out.println(line);
    }
}
