from streams.wire.reception import ReceptionStatistics
from streams.wire.rtcp import SenderReport
from streams.wire.rtp import RtpPacket

MS = 1_000_000


def packet(number, timestamp=0, ssrc=7):
    return RtpPacket(96, False, number & 0xFFFF, timestamp, ssrc, b"")


def test_nothing_is_reported_before_the_first_packet():
    assert ReceptionStatistics(1, 90_000).receiver_report(0) is None


def test_losses_are_counted_in_all_and_since_the_last_report():
    statistics = ReceptionStatistics(1, 90_000)
    for number in (65534, 65535, 1, 0, 3, 5):
        statistics.take_packet(packet(number), 0)
    report = statistics.receiver_report(0)
    assert (report.ssrc, report.reported_ssrc) == (1, 7)
    assert report.highest_sequence_number == 65536 + 5
    assert (report.lost, report.fraction_lost) == (2, 2 * 256 // 8)
    statistics.take_packet(packet(6), 0)
    report = statistics.receiver_report(0)
    assert (report.lost, report.fraction_lost) == (2, 0)


def test_an_even_pace_has_no_jitter_and_an_uneven_one_has():
    even, uneven = ReceptionStatistics(1, 90_000), ReceptionStatistics(1, 90_000)
    for number in range(100):
        even.take_packet(packet(number, number * 3600), number * 40 * MS)
        uneven.take_packet(packet(number, number * 3600), (number * 40 + number % 2 * 10) * MS)
    assert even.receiver_report(0).jitter == 0
    assert 800 < uneven.receiver_report(0).jitter <= 900


def test_the_last_sender_report_is_named_with_its_age():
    statistics = ReceptionStatistics(1, 90_000)
    statistics.take_packet(packet(1), 0)
    sent = SenderReport(
        ssrc=7, ntp_timestamp=0x0123456789ABCDEF, rtp_timestamp=0, packet_count=0, octet_count=0
    )
    statistics.take_report(sent, 1000 * MS)
    report = statistics.receiver_report(1500 * MS)
    assert report.last_sender_report == 0x456789AB
    assert report.delay_since_last_sender_report == 32768


def test_another_source_is_counted_from_its_beginning():
    statistics = ReceptionStatistics(1, 90_000)
    statistics.take_packet(packet(1), 0)
    statistics.take_packet(packet(9000, ssrc=8), 0)
    report = statistics.receiver_report(0)
    assert (report.reported_ssrc, report.highest_sequence_number, report.lost) == (8, 9000, 0)
